"""Files, folders and patterns of this machine."""

import fnmatch
import glob
import io
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.errors import DataInvalid, ImageUnreadable, SourceGone
from scoring.rows import printable
from scoring.sources import MAX_BYTES, SUFFIXES

_CHUNK = 64 * 2**10
"""Bytes of a pipe, or of a file that grew, that are read at once."""


@dataclass(frozen=True, slots=True)
class FileItem:
    """A file. `named` says that the user named this very file, so that pipes such as /dev/stdin are read too.

    `problem` stands in for a folder whose content cannot be listed: reading raises it. `root` is the folder in which
    the file was found.
    """

    id: int
    location: str
    named: bool = False
    problem: str | None = None
    root: str | None = None

    @property
    def path(self) -> str:
        """The path as it was found, fit to print."""
        return printable(self.location)

    def stamp(self) -> str:
        """Location, size and time of the last change."""
        try:
            status = os.stat(self.location)  # noqa: PTH116 – see _walk
        except (OSError, ValueError):
            return f"{self.location}\0{self.problem or ''}"
        if not stat.S_ISREG(status.st_mode):
            return f"{self.location}\0{self.problem or ''}"
        return f"{self.location}\0{status.st_size}\0{status.st_mtime_ns}"

    def read(self) -> bytes:
        """The content of the file. Raises ImageUnreadable, or SourceGone when the folder that it was in is gone."""
        if self.root is not None and self.root not in _roots:
            _is_gone(self.root)  # in a process of its own: looks at it for the first time
        if self.problem is not None:
            self._check_root()
            raise ImageUnreadable(self.problem)
        try:
            # Opening a pipe that nobody writes to would wait for ever, so a look comes first.
            if not self.named and not stat.S_ISREG(os.stat(self.location).st_mode):  # noqa: PTH116 – see _walk
                raise ImageUnreadable(f"{self.path} is not a regular file; name it by itself to read a pipe or device")
            with open(self.location, "rb", buffering=0) as file:  # noqa: PTH123 – see _walk
                before = os.fstat(file.fileno())
                data = _content(file, before.st_size)
                after = os.fstat(file.fileno())
        except (OSError, ValueError) as error:
            if not isinstance(error, PermissionError):
                self._check_root()
            reason = error.strerror if isinstance(error, OSError) else error
            raise ImageUnreadable(
                f"{self.path} cannot be read ({reason}); check that it exists and its owner and mode"
            ) from error
        if len(data) > MAX_BYTES:
            raise ImageUnreadable(f"{self.path} is larger than {MAX_BYTES:,} bytes, which no picture should be")
        if stat.S_ISREG(before.st_mode) and _changed(before, after):
            raise ImageUnreadable(f"{self.path} changed while it was read; score it again when nobody writes to it")
        return data

    def _check_root(self) -> None:
        """Raises SourceGone when the folder is not the one that this process saw first."""
        if self.root is not None and _is_gone(self.root):
            raise SourceGone(
                f"{printable(self.root)} is gone since the run began; bring it back, then run the same command again "
                "to go on"
            )


def _content(file: io.FileIO, size: int) -> bytes:
    """All of a file of probably so many bytes, or MAX_BYTES and one more of a larger one."""
    parts, left = [], MAX_BYTES + 1
    # Room for what is asked for is taken first: to ask for MAX_BYTES at once costs more than to read a photo.
    wanted = max(size + 1, _CHUNK)
    while left and (part := file.read(min(wanted, left))):
        parts.append(part)
        left -= len(part)
        wanted = _CHUNK
    return b"".join(parts)


_roots: dict[str, tuple[int, int]] = {}
"""The identities of searched folders. An unmounted one has another device, a new one in its place another number."""


_MOST_FOLDERS = 10_000


def folder_of(location: str, seen: set[str]) -> str | None:
    """The folder of a path as its root: if it is there now, or was when `seen` took it up, for the first 10,000."""
    folder = os.path.dirname(location) or os.curdir  # noqa: PTH120 – see _walk
    if folder not in seen:
        if len(seen) == _MOST_FOLDERS or not os.path.isdir(folder):  # noqa: PTH112
            return None
        seen.add(folder)
        _see(folder)
    return folder


def _see(root: str) -> None:
    """Look at a folder for the first time in this run."""
    _roots.pop(root, None)
    _is_gone(root)


def _is_gone(root: str) -> bool:
    try:
        device, number = _identity(root)
        before = _roots.setdefault(root, (device, number))
        if device == before[0] and number != before[1]:
            # Some network file systems number anew what is the same; one that holds nothing is not.
            with os.scandir(root) as entries:
                return next(entries, None) is None
    except OSError:
        return True
    return device != before[0]


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)


class Files:
    """Files, folders and patterns. Folders are searched to any depth, their entries in the byte order of their names.

    Links to folders are followed, but a folder is searched once below the one that was named, whatever leads there.
    What was named and gives nothing or does not exist, and folders that cannot be listed, are inputs too, so that they
    end as rows and not in silence.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        """Raises DataInvalid when no path is given or none exists."""
        self.paths = tuple(os.fspath(path) for path in paths)
        if not any(_exists(path) or is_pattern(path) for path in self.paths):
            missing = ", ".join(map(printable, self.paths)) or "nothing"
            raise DataInvalid(f"there is nothing to score: {missing} was named, none of it exists; check the paths")

    @property
    def description(self) -> str:
        """The first few paths, and how many more there are."""
        shown = ", ".join(map(printable, self.paths[:_SHOWN]))
        more = len(self.paths) - _SHOWN
        return f"{shown} and {more} more" if more > 0 else shown

    def __iter__(self) -> Iterator[FileItem]:
        seen: set[str] = set()
        found = (each for path in self.paths for each in _found(path, seen))
        for index, (location, named, problem, root) in enumerate(found):
            yield FileItem(index, location, named, problem, root)

    def count(self) -> int:
        """How many inputs there are. Raises DataInvalid when the folders hold no pictures."""
        each = [sum(1 for _ in _find(path, set())) for path in self.paths]
        if not any(each):
            raise DataInvalid(
                f"no pictures were found in {', '.join(map(printable, self.paths))}; files inside folders count when "
                f"they end in {' '.join(sorted(SUFFIXES))}, any other file must be named by itself"
            )
        return sum(count or 1 for count in each)


_SHOWN = 5

_Found = tuple[str, bool, str | None, str | None]
"""Location, whether the user named it, problem, root: a FileItem before it has its id."""


def is_pattern(path: str) -> bool:
    """Whether `*`, `?` or `[` in a path stand for other names, because no such file exists."""
    return glob.has_magic(path) and not _exists(path)


def _exists(path: str) -> bool:
    """False only where there is certainly nothing; what may not be looked at exists."""
    try:
        os.stat(path)  # noqa: PTH116 – see _walk
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def _found(path: str, seen: set[str]) -> Iterator[_Found]:
    """What was named and gives nothing is an input too."""
    nothing = True
    for each in _find(path, seen):
        nothing = False
        yield each
    if nothing:
        yield (
            path,
            False,
            f"{printable(path)} gave no picture; check that it is what you mean, and that it is there",
            None,
        )


def _find(path: str, seen: set[str]) -> Iterator[_Found]:
    if os.path.isdir(path):  # noqa: PTH112 – see _walk
        _see(path)
        for location, problem in _walk(path):
            yield location, False, problem, path
    elif is_pattern(path):
        for location, problem in matches(path):
            if problem is None and os.path.isdir(location):  # noqa: PTH112
                yield from _find(location, seen)
            else:
                yield location, False, problem, folder_of(location, seen)
    else:
        yield path, True, None, folder_of(path, seen)


def matches(pattern: str) -> Iterator[tuple[str, str | None]]:
    """Files and folders that a pattern names; with `**` files and folders that cannot be listed, by our own search.

    That search keeps no list and does not go round in a loop of links, as glob's does.
    """
    parts = pattern.split("/")
    if "**" not in parts:
        for match in sorted(glob.glob(pattern), key=os.fsencode):  # noqa: PTH207 – see _walk
            yield match, None
        return
    double = parts.index("**")
    before = "/".join(parts[:double]) or ("/" if pattern.startswith("/") else "")
    roots = sorted(glob.glob(before), key=os.fsencode) if before else ["."]  # noqa: PTH207
    for root in filter(os.path.isdir, roots):
        for location, problem in _walk(root, every=True):
            names = os.path.relpath(location, root).split("/")
            if problem is not None or _fits(names, parts[double:]):
                yield location if before else "/".join(names), problem


def _fits(names: list[str], pattern: list[str]) -> bool:
    """Whether a path's names fit a pattern's parts; as in a shell, hidden names are only found when spelled out."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return _fits(names, pattern[1:]) or (bool(names) and not names[0].startswith(".") and _fits(names[1:], pattern))
    if not names or (names[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(names[0], pattern[0]) and _fits(names[1:], pattern[1:])


# os.path rather than pathlib from here on: a million Path objects cost more than the search itself, and pathlib
# drops a leading "./", which the user may have typed because of a leading dash.
def _walk(root: str, *, every: bool = False) -> Iterator[tuple[str, str | None]]:
    """Every picture (or every file) below `root`, depth first, and folders that cannot be listed with their problem.

    A folder is searched once. One list of names per open folder, and each folder's number, is all that is held.
    """
    open_folders: list[tuple[str, Iterator[tuple[str, bool]]]] = []
    searched: set[tuple[int, int]] = set()
    pending: str | None = root
    while pending is not None or open_folders:
        if pending is not None:
            folder, pending = pending, None
            try:
                identity = _identity(folder)
                # Links among a few folders lead to each of them in more ways than could ever be gone.
                if identity not in searched:
                    searched.add(identity)
                    open_folders.append((folder, iter(_entries(folder, every))))
            except OSError as error:
                problem = f"{printable(folder)} is a folder that cannot be listed ({error.strerror}); check its mode"
                yield folder, problem
            continue
        folder, entries = open_folders[-1]
        name, is_folder = next(entries, ("", False))
        if not name:
            open_folders.pop()
        elif is_folder:
            pending = os.path.join(folder, name)  # noqa: PTH118
        else:
            yield os.path.join(folder, name), None  # noqa: PTH118


def _identity(folder: str) -> tuple[int, int]:
    """What tells one folder from another whatever leads there. Raises OSError."""
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


def _entries(folder: str, every: bool) -> list[tuple[str, bool]]:
    """Subfolders and pictures (or files) by name, and which of both each is, sorted. Raises OSError."""
    with os.scandir(folder) as entries:
        found = [(entry.name, _is_folder(entry)) for entry in entries]
    kept = [
        (name, is_folder)
        for name, is_folder in found
        if is_folder or every or os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122
    ]
    return sorted(kept, key=lambda entry: os.fsencode(entry[0]))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle: reading it makes its row
        return False
