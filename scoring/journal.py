"""Which parts of an output are committed: a line of JSON for each, after one that says of what run they are.

A part counts when its line is whole and its file is the one that the line describes. So neither has to reach the disk
in any order: what a kill, a power cut or a full disk left half is found when the run goes on, and scored again.
"""

import errno
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import PositiveInt, TypeAdapter, ValidationError

from inference.durability import sync
from inference.errors import OutputUnwritable

if sys.platform != "win32":
    import fcntl

JOURNAL = "journal.jsonl"
JOINED = "joined"
FORMAT_VERSION = 1

Fingerprint = Mapping[str, object]
"""Everything that the rows depend on besides the inputs, as JSON has it."""


@dataclass(frozen=True, slots=True)
class Part:
    """A committed part: the digests of its file and of the inputs that it answers, and what is in it.

    `witnesses` are addresses that gave something, one for every server that no part before had any of.
    """

    sha256: str
    inputs: str
    rows: PositiveInt
    abstained: int
    labels: Mapping[str, int]
    errors: Mapping[str, int]
    witnesses: Sequence[str] = ()


_PART = TypeAdapter(Part)


class Journal:
    """The parts and the journal of one output, in a folder that one process holds at a time."""

    def __init__(self, folder: Path, suffix: str, output: Path) -> None:
        """`suffix` is the ending of the parts' files, `output` the file that they become."""
        self.folder = folder
        self.output = output
        self.joined = folder / JOINED
        self.parts: list[Part] = []
        self.complete = False
        self._suffix = suffix
        self._begun = False
        self._file: io.FileIO | None = None

    def open(self, fingerprint: Fingerprint, *, restart: bool = False) -> None:
        """Read what is committed, or begin. `complete` then says that the output is in its place.

        Raises OutputUnwritable when another process holds the folder or its parts are of another run, and OSError.
        """
        self.folder.mkdir(exist_ok=True)
        if not (self.folder / JOURNAL).exists() and any(self.folder.iterdir()):
            raise OutputUnwritable(
                f"{self.folder} holds files that are not of a scoring run; move them away or choose another output"
            )
        self._file = _locked(self.folder / JOURNAL)
        # As JSON gives it back, so that what is compared is what was written.
        wanted = json.loads(json.dumps({"format_version": FORMAT_VERSION, **fingerprint}))
        lines = [] if restart else list(_whole_lines(self._file))
        if lines:
            self._compare(lines[0][0], wanted)
            self._file.truncate(self._believe(lines))
        else:
            self._file.truncate(0)
            self._append(wanted)
            self._begun = True
        for path in self.folder.glob(f"*{self._suffix}"):
            if path.stem.isdecimal() and int(path.stem) >= len(self.parts):
                path.unlink()

    def path(self, index: int) -> Path:
        """The file of a part."""
        return self.folder / f"{index:08}{self._suffix}"

    def commit(self, data: bytes, part: Part) -> None:
        """Write a part; it counts from now on. Raises OSError: then it does not."""
        self.path(len(self.parts)).write_bytes(data)
        self._append(asdict(part))
        self.parts.append(part)

    def finish(self) -> None:
        """Give `joined`, the whole output, its name: a run that finds it there, by its digest, needs the parts no more.

        Raises OSError; the parts count as before.
        """
        assert self._file is not None
        self._append({"complete": _sha256(self.joined)})
        os.fsync(self._file.fileno())
        self.joined.replace(self.output)
        sync(self.output.parent)
        self.complete = True

    def remove(self) -> None:
        """The output is in its place: take the parts away, the journal last. Raises OSError."""
        self.joined.unlink(missing_ok=True)
        for index in range(len(self.parts)):
            self.path(index).unlink(missing_ok=True)
        (self.folder / JOURNAL).unlink()
        self.folder.rmdir()

    def close(self) -> None:
        """Let other processes have the folder. One that was begun in vain goes."""
        if self._file is None:
            return
        if self._begun and not self.parts:
            with suppress(OSError):
                self.path(0).unlink(missing_ok=True)
                self.remove()
        self._file.close()
        self._file = None

    def _compare(self, found: dict[str, object], wanted: dict[str, object]) -> None:
        differing = [
            f"{key} was {found.get(key)!r} and is {wanted.get(key)!r}"
            for key in dict.fromkeys([*wanted, *found])
            if found.get(key) != wanted.get(key)
        ]
        if differing:
            raise OutputUnwritable(
                f"{self.folder} holds rows of an unfinished run that was another ({'; '.join(differing)}); repeat that "
                "run to go on with it, add --restart to drop its rows, or choose another output"
            )

    def _believe(self, lines: list[tuple[dict[str, object], int]]) -> int:
        """Take over the parts up to the first whose file is not whole; returns where the last good line ends."""
        # Once the output is in its place the parts have served, and some may be removed already.
        digest = lines[-1][0].get("complete")
        parts = [_part(content) for content, _ in lines[1:]]
        if digest is not None and None not in parts[:-1] and _sha256(self.output) == digest:
            self.complete = True
            self.parts = list(filter(None, parts))
            return lines[-1][1]
        end = lines[0][1]
        for part, (_, line_end) in zip(parts, lines[1:], strict=True):
            if part is None or _sha256(self.path(len(self.parts))) != part.sha256:
                break
            self.parts.append(part)
            end = line_end
        return end

    def _append(self, content: Mapping[str, object]) -> None:
        assert self._file is not None
        line = json.dumps(content, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _locked(path: Path) -> io.FileIO:
    """The file, opened for reading and appending by this process alone. Raises OutputUnwritable or OSError."""
    while True:
        file = path.open("a+b", buffering=0)
        if sys.platform == "win32":  # two runs at once are the user's own care there
            return file
        try:
            # The lock goes with the process, whatever ends it.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise OutputUnwritable(
                f"{path.parent} is being written by a run that is still going on; wait for it or choose another output"
            ) from None
        # A run that ended in between removed this very file: its lock keeps nobody out.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _whole_lines(file: io.FileIO) -> Iterator[tuple[dict[str, object], int]]:
    """The lines from the beginning to the first that is not whole, and where each of them ends."""
    file.seek(0)
    end = 0
    for line in file.read().splitlines(keepends=True):
        end += len(line)
        try:
            content = json.loads(line)
        except ValueError:
            return
        if not line.endswith(b"\n") or not isinstance(content, dict):
            return
        yield content, end


def _part(content: dict[str, object]) -> Part | None:
    """None where a line is not as `commit` wrote it."""
    try:
        return _PART.validate_python(content)
    except ValidationError:
        return None


def _sha256(path: Path) -> str | None:
    """Of a file's content; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
