"""Where rows go: to a file that is whole or not there, in parts until then, or to standard output."""

import hashlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from inference.errors import OutputUnwritable
from scoring.formats import Format, format_of, load_format
from scoring.journal import Fingerprint, Journal, Part
from scoring.rows import Row
from scoring.summary import Tally

PARTS = ".parts"
"""Added to a file's name for the folder that holds its parts until it is whole."""


class Sink(Protocol):
    """Takes rows in order and commits them in parts. A context manager around the run."""

    @property
    def resumable(self) -> bool:
        """Whether a later run can go on from what is committed."""

    @property
    def place(self) -> str:
        """Where the rows are, for messages."""

    def begin(self, fingerprint: Fingerprint, columns: Sequence[str]) -> Sequence[Part]:
        """Open. Returns what an earlier run of this fingerprint committed. Raises OutputUnwritable, PackageMissing."""

    def write(self, row: Row) -> None:
        """Take a row. Raises OutputUnwritable."""

    def commit_part(self, inputs: str, witnesses: Sequence[str] = ()) -> None:
        """Commit the rows since the last part; `inputs` is the digest of theirs, `witnesses` are those of a Part.

        Raises OutputUnwritable.
        """

    def commit(self) -> None:
        """Every row was written and is in a part: make the output whole. Raises OutputUnwritable."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None: ...


class FileSink:
    """Rows to a file. Until `commit` they are in `<name>.parts/`, where a run that ended early goes on.

    `overwrite` lets `commit` replace a file that exists, `restart` drops what an earlier run left.
    """

    resumable = True

    def __init__(
        self,
        path: Path,
        format: str | None = None,  # noqa: A002
        *,
        overwrite: bool = False,
        restart: bool = False,
    ) -> None:
        """Raises OutputUnwritable: an unknown format, or a file that exists and is not to be replaced."""
        if not path.name:
            raise OutputUnwritable(f"{str(path)!r} names no file; choose another output")
        self.path = path
        self.folder = path.with_name(path.name + PARTS)
        self._name = format_of(path, format)
        self._overwrite = overwrite
        self._restart = restart
        self._rows: list[Row] = []
        self._journal = Journal(self.folder, f".{self._name}", path)
        self._committed = False
        if not self.folder.exists():
            self._refuse_existing()

    @property
    def place(self) -> str:
        """The file itself once it is whole, before that the folder of its parts."""
        return str(self.path if self._committed else self.folder)

    def begin(self, fingerprint: Fingerprint, columns: Sequence[str]) -> Sequence[Part]:
        """Open or continue the folder of the parts. Raises OutputUnwritable, PackageMissing."""
        self._format: Format = load_format(self._name, columns)
        self._fingerprint = {"format": self._name, **fingerprint}
        try:
            self._journal.open(self._fingerprint, restart=self._restart)
        except OSError as error:
            raise OutputUnwritable(
                f"{self.folder} cannot be written ({error.strerror}); choose another place for the output"
            ) from error
        if not self._journal.complete:
            self._refuse_existing()
        return tuple(self._journal.parts)

    def write(self, row: Row) -> None:
        """Hold a row for the part in hand. Raises OutputUnwritable when an earlier run finished the file already."""
        if self._journal.complete:
            raise OutputUnwritable(
                f"{self.path} is finished with the {row.id:,} rows of an earlier run, and there are more inputs now; "
                "add --restart --overwrite to score all of them anew, or choose another output"
            )
        self._rows.append(row)

    def commit_part(self, inputs: str, witnesses: Sequence[str] = ()) -> None:
        """Write the rows in hand and say so in the journal. Raises OutputUnwritable; the parts before stay."""
        if not self._rows:
            return
        data = self._format.encode(self._rows)
        tally = Tally()
        for row in self._rows:
            tally.add(row)
        digest = hashlib.sha256(data).hexdigest()
        counts = (tally.rows, tally.abstained, dict(tally.labels), dict(tally.errors))
        part = Part(digest, inputs, *counts, witnesses)
        try:
            self._journal.commit(data, part)
        except OSError as error:
            raise self._unwritable(error) from error
        self._rows = []

    def commit(self) -> None:
        """Join the parts, make the file durable and give it its name. Raises OutputUnwritable; the parts stay."""
        try:
            # After a kill in the clean-up the file has its name already.
            if not self._journal.complete:
                self._refuse_existing()
                self._join()
            self._journal.remove()
        except OSError as error:
            raise self._unwritable(error) from error
        self._committed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._journal.close()

    def _join(self) -> None:
        journal = self._journal
        with journal.joined.open("wb") as file:
            self._format.join(map(journal.path, range(len(journal.parts))), file, self._fingerprint)
            file.flush()
            os.fsync(file.fileno())
        journal.finish()

    def _refuse_existing(self) -> None:
        if self.path.is_dir():
            raise OutputUnwritable(f"{self.path} is a folder; choose another output")
        if self.path.exists() and not self.path.is_file():
            raise OutputUnwritable(
                f"{self.path} is a device or a pipe, which no file may replace; choose another output"
            )
        if not self._overwrite and self.path.exists():
            raise OutputUnwritable(f"{self.path} exists already; choose another output or add --overwrite")

    def _unwritable(self, error: OSError) -> OutputUnwritable:
        with suppress(OSError):
            self._journal.joined.unlink()
        rows = sum(part.rows for part in self._journal.parts)
        return OutputUnwritable(
            f"{self.path} cannot be written any further ({error.strerror}); the {rows:,} rows so far are in "
            f"{self.folder}; make room, then run the same command again to go on"
        )


class StreamSink:
    """Rows to a binary stream, by default standard output, each as soon as it is known."""

    resumable = False

    def __init__(self, format: str = "jsonl", stream: BinaryIO | None = None) -> None:  # noqa: A002
        """Raises OutputUnwritable for an unknown format, one that is no text, and a closed standard output."""
        if stream is None and sys.stdout is None:
            raise OutputUnwritable("standard output is closed; name a file with --output")
        self.place = "standard output" if stream is None else "the stream"
        self._own = stream is None
        self._stream = sys.stdout.buffer if stream is None else stream
        self._name = format_of(Path(), format)
        if self._name == "parquet":
            raise OutputUnwritable("Parquet cannot be written to standard output; name a file with --output")

    def begin(self, fingerprint: Fingerprint, columns: Sequence[str]) -> Sequence[Part]:  # noqa: ARG002 – of all sinks
        """Write what stands before the rows. Raises OutputUnwritable."""
        self._format = load_format(self._name, columns)
        self._append(self._format.head)
        return ()

    def write(self, row: Row) -> None:
        """Write a row. Raises OutputUnwritable when the reader went away or the disk is full."""
        self._append(self._format.encode([row]))

    def commit_part(self, inputs: str, witnesses: Sequence[str] = ()) -> None:
        """Nothing is held back."""

    def commit(self) -> None:
        """Nothing is held back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """The stream belongs to the caller and stays open."""

    def _append(self, data: bytes) -> None:
        try:
            self._stream.write(data)
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
