"""What is to be scored: inputs in a stable order with stable ids, read when their turn comes."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from inference.errors import DataInvalid, ImageUnreadable
from scoring.rows import printable

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .bmp .dib .tif .tiff .avif .avifs".split()  # noqa: SIM905 – read
)
"""Endings, in lower case, by which a file inside a folder counts as a picture. A file named by itself always does."""

MAX_BYTES = 256 * 2**20
"""Largest file that is read: a damaged or endless one must not take all memory."""


class Item(Protocol):
    """One input. Small and picklable: a million may be listed, and an engine may hand them to other processes."""

    @property
    def id(self) -> int:
        """Position in the source, from 0."""

    @property
    def path(self) -> str:
        """Where the input lives, fit to print."""

    def read(self) -> bytes:
        """The encoded picture. Raises ImageUnreadable."""


class Source(Protocol):
    """Inputs that can be gone through again, in the same order, as long as nobody changes them."""

    def __iter__(self) -> Iterator[Item]: ...

    def count(self) -> int:
        """How many inputs there are. Raises DataInvalid when there are none."""


@dataclass(frozen=True, slots=True)
class FileItem:
    """A file. `named` says that the user named this very file, so that pipes such as /dev/stdin are read too.

    `problem` stands in for a folder whose content cannot be listed: reading raises it.
    """

    id: int
    location: str
    named: bool = False
    problem: str | None = None

    @property
    def path(self) -> str:
        """The path as it was found, fit to print."""
        return printable(self.location)

    def read(self) -> bytes:
        """The content of the file. Raises ImageUnreadable."""
        if self.problem is not None:
            raise ImageUnreadable(self.problem)
        try:
            # Opening a pipe that nobody writes to would wait for ever, so a look comes first.
            if not self.named and not stat.S_ISREG(os.stat(self.location).st_mode):  # noqa: PTH116 – see _walk
                raise ImageUnreadable(f"{self.path} is not a regular file; name it by itself to read a pipe or device")
            with open(self.location, "rb") as file:  # noqa: PTH123 – see _walk
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ImageUnreadable(
                f"{self.path} cannot be read ({reason}); check that it exists and its owner and mode"
            ) from error
        if len(data) > MAX_BYTES:
            raise ImageUnreadable(f"{self.path} is larger than {MAX_BYTES:,} bytes, which no picture should be")
        return data


class Files:
    """Files and folders. Folders are searched to any depth, their entries in the byte order of their names.

    Links to folders are followed, except back into a folder that is being searched. What was named but does not exist
    and folders that cannot be listed are inputs too, so that they end as rows and not in silence.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        """Raises DataInvalid when no path is given or none exists."""
        self.paths = tuple(os.fspath(path) for path in paths)
        if not any(_exists(path) for path in self.paths):
            missing = ", ".join(map(printable, self.paths)) or "nothing"
            raise DataInvalid(f"there is nothing to score: {missing} was named, none of it exists; check the paths")

    def __iter__(self) -> Iterator[FileItem]:
        found = (each for path in self.paths for each in _find(path))
        for index, (location, named, problem) in enumerate(found):
            yield FileItem(index, location, named, problem)

    def count(self) -> int:
        """How many inputs there are. Raises DataInvalid when the folders hold no pictures."""
        total = sum(1 for path in self.paths for _ in _find(path))
        if not total:
            raise DataInvalid(
                f"no pictures were found in {', '.join(map(printable, self.paths))}; files inside folders count when "
                f"they end in {' '.join(sorted(SUFFIXES))}, any other file must be named by itself"
            )
        return total


_Found = tuple[str, bool, str | None]
"""Location, whether the user named it, problem: a FileItem before it has its id."""


def _exists(path: str) -> bool:
    """False only where there is certainly nothing; what may not be looked at exists."""
    try:
        os.stat(path)  # noqa: PTH116 – see _walk
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def _find(path: str) -> Iterator[_Found]:
    if os.path.isdir(path):  # noqa: PTH112 – see _walk
        yield from _walk(path)
    else:
        yield path, True, None


# os.path rather than pathlib from here on: a million Path objects cost more than the search itself, and pathlib
# drops a leading "./", which the user may have typed because of a leading dash.
def _walk(root: str) -> Iterator[_Found]:
    """Every picture below `root`, depth first. One list of names per open folder is all that is held."""
    open_folders: list[tuple[tuple[int, int], str, Iterator[tuple[str, bool]]]] = []
    pending: str | None = root
    while pending is not None or open_folders:
        if pending is not None:
            folder, pending = pending, None
            try:
                identity = _identity(folder)
                # A link back into a folder that is being searched would be searched for ever.
                if all(identity != above for above, _, _ in open_folders):
                    open_folders.append((identity, folder, iter(_entries(folder))))
            except OSError as error:
                problem = f"{printable(folder)} is a folder that cannot be listed ({error.strerror}); check its mode"
                yield folder, False, problem
            continue
        _, folder, entries = open_folders[-1]
        name, is_folder = next(entries, ("", False))
        if not name:
            open_folders.pop()
        elif is_folder:
            pending = os.path.join(folder, name)  # noqa: PTH118
        else:
            yield os.path.join(folder, name), False, None  # noqa: PTH118


def _identity(folder: str) -> tuple[int, int]:
    """What tells one folder from another whatever leads there. Raises OSError."""
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


def _entries(folder: str) -> list[tuple[str, bool]]:
    """Subfolders and pictures by name, and which of both each is, sorted. Raises OSError."""
    with os.scandir(folder) as entries:
        found = [(entry.name, _is_folder(entry)) for entry in entries]
    kept = [
        (name, is_folder)
        for name, is_folder in found
        if is_folder or os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122
    ]
    return sorted(kept, key=lambda entry: os.fsencode(entry[0]))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle: reading it makes its row
        return False
