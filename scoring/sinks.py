"""Where rows go: CSV or JSON lines, to a file that is whole or not there, or to standard output."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from inference.durability import sync
from inference.errors import OutputUnwritable
from scoring.rows import COLUMNS, Row

PART = ".part"
"""Added to a file's name until the run is complete."""


class Sink(Protocol):
    """Takes rows in order. Left without `commit`, it keeps what it has and `place` says where."""

    @property
    def place(self) -> str:
        """Where the rows are, for messages."""

    def write(self, row: Row) -> None:
        """Keep a row. Raises OutputUnwritable."""

    def commit(self) -> None:
        """Every row was written: make the output whole. Raises OutputUnwritable."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None: ...


def csv_line(row: Row) -> str:
    """A row as CSV: nothing for None, `true` or `false`, and `top_k` as JSON."""
    return _csv([_csv_cell(value) for value in row.flat().values()])


def json_line(row: Row) -> str:
    """A row as one line of JSON."""
    return json.dumps(row.flat(), ensure_ascii=False, allow_nan=False) + "\n"


def _csv_cell(value: object) -> object:
    # bool before the rest: CSV has no types, and "true" is what JSON and databases write.
    if isinstance(value, (bool, list)):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    return value


def _csv(cells: list[object]) -> str:
    line = io.StringIO()
    # Both characters are named as line ends so that a name holding either is quoted; the file itself has "\n".
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


_FORMATS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "csv": (_csv(list(COLUMNS)), csv_line),
    "jsonl": ("", json_line),
}
"""Format → what stands first in the file, and how a row is written."""

FORMATS = tuple(_FORMATS)
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def format_of(path: Path, chosen: str | None = None) -> str:
    """The format that was chosen, else the one that the file's ending names. Raises OutputUnwritable."""
    found = chosen or _SUFFIXES.get(path.suffix.lower())
    if found not in _FORMATS:
        what = f"format {chosen!r}" if chosen else f"the ending of {path}"
        raise OutputUnwritable(f"{what} names no known format; choose one of {', '.join(FORMATS)}")
    return found


class FileSink:
    """Rows to a file, in `<name>.part` until `commit` renames it.

    Every row is handed to the operating system when it is written, so rows survive the end of this process, and after
    a failed write the file is cut back to its last whole row.
    """

    def __init__(self, path: Path, format: str | None = None, *, overwrite: bool = False) -> None:  # noqa: A002
        """Raises OutputUnwritable: an unknown format, an existing output, or a place that cannot be written."""
        self._first, self._line = _FORMATS[format_of(path, format)]
        self.path = path
        self.part = path.with_name(path.name + PART)
        self._overwrite = overwrite
        self._rows = self._size = 0
        self._committed = False
        self._refuse_existing()
        if self.part.exists() and not overwrite:
            raise self._part_exists()

    @property
    def place(self) -> str:
        """The file itself once it is whole, before that its part."""
        return str(self.path if self._committed else self.part)

    def write(self, row: Row) -> None:
        """Append a row. Raises OutputUnwritable when the disk is full or gone; the rows before stay."""
        self._append(self._line(row))
        self._rows += 1

    def commit(self) -> None:
        """Make the file durable and give it its name. Raises OutputUnwritable; the part stays."""
        self._refuse_existing()
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self.part.replace(self.path)
            sync(self.path.parent)
        except OSError as error:
            raise self._unwritable(error) from error
        self._committed = True

    def __enter__(self) -> Self:
        """Create the part. Raises OutputUnwritable."""
        try:
            # "x" also keeps two runs from writing the same file.
            self._file = self.part.open("wb" if self._overwrite else "xb", buffering=0)
        except FileExistsError:
            raise self._part_exists() from None
        except OSError as error:
            raise OutputUnwritable(
                f"{self.part} cannot be written ({error.strerror}); choose another place for the output"
            ) from error
        try:
            self._append(self._first)
        except OutputUnwritable:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        self._file.close()
        # A part without rows is worth nothing and would stand in the way of the next run.
        if not self._rows and not self._committed:
            self.part.unlink(missing_ok=True)

    def _append(self, text: str) -> None:
        data = text.encode()
        try:
            _write_all(self._file, data)
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._size)
            raise self._unwritable(error) from error
        self._size += len(data)

    def _refuse_existing(self) -> None:
        if not self._overwrite and self.path.exists():
            raise OutputUnwritable(f"{self.path} exists already; choose another output or allow overwriting")

    def _part_exists(self) -> OutputUnwritable:
        return OutputUnwritable(
            f"{self.part} holds the rows of a run that was interrupted or is still going on; "
            "move it away, choose another output or allow overwriting"
        )

    def _unwritable(self, error: OSError) -> OutputUnwritable:
        return OutputUnwritable(
            f"{self.path} cannot be written any further ({error.strerror}); the {self._rows:,} rows so far are in "
            f"{self.part}; make room or choose another place, then start again"
        )


class StreamSink:
    """Rows to a binary stream, by default standard output, each as soon as it is known."""

    def __init__(self, format: str = "jsonl", stream: BinaryIO | None = None) -> None:  # noqa: A002
        """Raises OutputUnwritable for an unknown format."""
        self.place = "standard output" if stream is None else "the stream"
        self._own = stream is None
        self._stream = sys.stdout.buffer if stream is None else stream
        self._first, self._line = _FORMATS[format_of(Path(), format)]

    def write(self, row: Row) -> None:
        """Write a row. Raises OutputUnwritable when the reader went away or the disk is full."""
        self._append(self._line(row))

    def commit(self) -> None:
        """Nothing is held back."""

    def __enter__(self) -> Self:
        self._append(self._first)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """The stream belongs to the caller and stays open."""

    def _append(self, text: str) -> None:
        try:
            self._stream.write(text.encode())
            self._stream.flush()
        except OSError as error:
            if self._own:
                _discard_rest(self._stream)
            raise OutputUnwritable(
                f"{self.place} takes no more rows ({error.strerror}); read it to its end or write to a file"
            ) from error


def _discard_rest(stream: BinaryIO) -> None:
    """What a broken stream's buffer still holds would raise once more when Python ends; let it go nowhere instead."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _write_all(file: io.FileIO, data: bytes) -> None:
    """Write every byte: an unbuffered file may take only a part at once. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
