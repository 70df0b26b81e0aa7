"""How rows are written: CSV and JSON lines here, Parquet in a module of its own that needs pyarrow."""

import csv
import io
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from inference.errors import OutputUnwritable
from scoring.journal import Fingerprint
from scoring.rows import Row

FORMATS = ("csv", "jsonl", "parquet")
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


class Format(Protocol):
    """Rows to bytes, in parts that are joined in the end: the whole does not depend on where a part ends."""

    suffix: str
    """The ending of a part's file."""

    head: bytes
    """What stands before all parts."""

    def encode(self, rows: Sequence[Row]) -> bytes:
        """The content of a part."""

    def join(self, parts: Iterable[Path], target: BinaryIO, fingerprint: Fingerprint) -> None:
        """Write the whole from its parts. Raises OSError."""


class TextFormat:
    """CSV or JSON lines: parts one after the other."""

    def __init__(self, name: str, columns: Sequence[str]) -> None:
        self.suffix = f".{name}"
        self.head = _csv(columns).encode() if name == "csv" else b""
        self._line = csv_line if name == "csv" else json_line
        self._columns = columns

    def encode(self, rows: Sequence[Row]) -> bytes:
        """One line per row."""
        return "".join(self._line(row, self._columns) for row in rows).encode()

    def join(self, parts: Iterable[Path], target: BinaryIO, fingerprint: Fingerprint) -> None:  # noqa: ARG002 – of all
        """The head, then every part."""
        target.write(self.head)
        for path in parts:
            with path.open("rb") as part:
                shutil.copyfileobj(part, target)


def format_of(path: Path, chosen: str | None = None) -> str:
    """The format that was chosen, else the one that the file's ending names. Raises OutputUnwritable."""
    found = chosen or _SUFFIXES.get(path.suffix.lower())
    if found not in FORMATS:
        what = f"format {chosen!r}" if chosen else f"the ending of {path}"
        raise OutputUnwritable(f"{what} names no known format; choose one of {', '.join(FORMATS)}")
    return found


def load_format(name: str, columns: Sequence[str]) -> Format:
    """The format for these columns. Raises PackageMissing."""
    if name == "parquet":
        from scoring.parquet import ParquetFormat

        return ParquetFormat(columns)
    return TextFormat(name, columns)


def csv_line(row: Row, columns: Sequence[str]) -> str:
    """A row as CSV: nothing for None, `true` or `false`, and lists as JSON."""
    flat = row.flat()
    return _csv([_csv_cell(flat[name]) for name in columns])


def json_line(row: Row, columns: Sequence[str]) -> str:
    """A row as one line of JSON."""
    flat = row.flat()
    return json.dumps({name: flat[name] for name in columns}, ensure_ascii=False, allow_nan=False) + "\n"


def _csv_cell(value: object) -> object:
    # bool before the rest: CSV has no types, and "true" is what JSON and databases write.
    if isinstance(value, (bool, list, tuple)):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    return value


def _csv(cells: Sequence[object]) -> str:
    line = io.StringIO()
    # Both characters are named as line ends so that a name holding either is quoted; the file itself has "\n".
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"
