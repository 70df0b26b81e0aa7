"""Tables with a column of paths, addresses or pictures: CSV, JSON lines and Parquet."""

import base64
import binascii
import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, BinaryIO

from inference.errors import DataInvalid, PackageMissing
from scoring.files import FileItem, folder_of
from scoring.remote import named, opened
from scoring.rows import printable
from scoring.services import is_address
from scoring.sources import BytesItem, FailedItem, Item

KINDS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""The endings of tables."""

_CHUNK = 2**16

_PARQUET_ROWS = 32
"""Rows of a Parquet column in memory at once: they may be pictures."""

MAX_ROW = 64 * 2**20
"""Characters of a row of text at most: a line that never ends must not take all memory, nor what stray quotes join."""

# The row has its own limit, and the csv module's is for the process.
csv.field_size_limit(MAX_ROW)


class _Unreadable(StrEnum):
    """Stands for the value of a line that has none, and says why."""

    no_object = "is no JSON object"
    too_long = f"is longer than {MAX_ROW:,} characters; keep its picture in a file, and name that"


class Table:
    """The rows of a table, in its order.

    A value is a path, an address, the bytes of a picture (Parquet; also as the `bytes` of a struct, as Hugging Face
    writes them) or a `data:` address. Relative paths begin at `base`, by default the table's own folder.
    """

    def __init__(self, location: str, column: str | None, base: str | None = None) -> None:
        """Raises DataInvalid when the table cannot be read or has no such column."""
        self._location = location
        self._kind = KINDS[_ending(location)]
        columns = self._columns()
        if columns and columns[0].startswith(("\udcff\udcfe", "\udcfe\udcff")):
            raise DataInvalid(f"{printable(location)} is UTF-16; save it as UTF-8")
        if column not in columns:
            what = "name the column of the pictures with --column" if column is None else f"it has no column {column!r}"
            raise DataInvalid(f"{printable(location)}: {what}; it has {', '.join(map(printable, columns)) or 'none'}")
        self._column = column
        self._base = _folder(location) if base is None else base

    @property
    def description(self) -> str:
        """The table and its column."""
        return printable(f"{self._location}[{self._column}]")

    def __iter__(self) -> Iterator[Item]:
        seen: set[str] = set()
        for index, value in enumerate(self.values()):
            yield self._item(index, value, seen)

    def count(self) -> int:
        """How many rows the table has."""
        if self._kind == "parquet":
            with _parquet(self._location) as table:
                return int(table.metadata.num_rows)
        return sum(1 for _ in self.values())

    def _item(self, index: int, value: object, seen: set[str]) -> Item:
        where = f"{printable(self._location)}#{index}"
        if isinstance(value, dict):  # {"bytes": …, "path": …}, either may be missing
            where = printable(str(value.get("path") or where))
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes) and value:
            return BytesItem(index, where, value)
        if not isinstance(value, str) or not value or isinstance(value, _Unreadable):
            what = value if isinstance(value, _Unreadable) else f"holds no path or picture in {self._column!r}"
            return FailedItem(index, where, f"row {index} of {printable(self._location)} {what}")
        if value.startswith("data:"):
            return _embedded(index, where, value)
        if is_address(value):
            return named(index, value)
        if is_address(self._base):
            return named(index, f"{self._base.rstrip('/')}/{value}")
        location = os.path.join(self._base, value)  # noqa: PTH118 – as in files.py
        return FileItem(index, location, root=folder_of(location, seen))

    def _columns(self) -> list[str]:
        if self._kind == "parquet":
            with _parquet(self._location) as table:
                return list(table.schema_arrow.names)
        with opened(self._location) as file:
            text = _text(file)
            if self._kind == "jsonl":
                first = next(_json(text), None)
                return list(first) if isinstance(first, dict) else []
            return next(_csv(text, self._kind, self._location), [])

    def values(self) -> Iterator[object]:
        """The column's values. Raises DataInvalid where the table is damaged."""
        if self._kind == "parquet":
            yield from self._parquet_values()
            return
        with opened(self._location) as file:
            text = _text(file)
            if self._kind == "jsonl":
                for found in _json(text):
                    yield found.get(self._column) if isinstance(found, dict) else found
                return
            rows = _csv(text, self._kind, self._location)
            position = next(rows).index(self._column or "")
            for row in filter(None, rows):
                yield row[position] if position < len(row) else None

    def _parquet_values(self) -> Iterator[object]:
        with _parquet(self._location) as table:
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=[self._column], use_threads=False):
                yield from map(_value, batch.column(0))


def _value(cell: Any) -> object:
    """A Parquet cell as Python has it; text that is not UTF-8 keeps its bytes, a date out of range is None."""
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        if hasattr(cell, "items"):  # a struct
            return {name: _value(each) for name, each in cell.items()}
        cell = getattr(cell, "value", cell)  # of a dictionary
        return os.fsdecode(cell.as_buffer().to_pybytes()) if hasattr(cell, "as_buffer") else None


def _ending(location: str) -> str:
    return os.path.splitext(location)[1].lower()  # noqa: PTH122 – as in files.py


def is_table(location: str) -> bool:
    """Whether a path or address is a table's."""
    return _ending(location) in KINDS


def _folder(location: str) -> str:
    return location.rpartition("/")[0] if is_address(location) else os.path.dirname(location)  # noqa: PTH120


def _text(file: BinaryIO) -> io.TextIOWrapper:
    """Lines with the ends that they have; a byte order mark is passed over, bytes that are no text are kept."""
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _csv(text: io.TextIOWrapper, kind: str, location: str) -> Iterator[list[str]]:
    """Raises DataInvalid. Strict, or a quote that nobody closes would take all the lines that follow."""
    lines = _Lines(text)
    rows = csv.reader(lines, delimiter="\t" if kind == "tsv" else ",", strict=True)
    begins = 1
    try:
        for row in rows:
            begins = rows.line_num + 1
            lines.left = MAX_ROW
            yield row
    except csv.Error as error:
        raise DataInvalid(
            f"{printable(location)}: the row that begins in line {begins} cannot be read ({error}); mend or remove it, "
            "quotes first"
        ) from error


class _Lines:
    """The lines of a CSV, while the row that they are of has characters left."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.left = MAX_ROW

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self.left + 1)
        self.left -= len(line)
        if self.left < 0:
            raise csv.Error(f"it is longer than {MAX_ROW:,} characters")
        if not line:
            raise StopIteration
        return line


def _json(text: io.TextIOWrapper) -> Iterator[dict[str, Any] | _Unreadable]:
    """What the lines hold that are not blank; one that is too long is passed over to its end."""
    while line := text.readline(MAX_ROW + 1):
        if len(line) > MAX_ROW:
            while line and not line.endswith(("\n", "\r")):
                line = text.readline(_CHUNK)
            yield _Unreadable.too_long
        elif line.strip():
            yield _object(line)


def _object(line: str) -> dict[str, Any] | _Unreadable:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return _Unreadable.no_object
    return found if isinstance(found, dict) else _Unreadable.no_object


@contextmanager
def _parquet(location: str) -> Iterator[Any]:
    """An open Parquet file. Raises PackageMissing or DataInvalid."""
    try:
        import pyarrow.parquet as pq
        from pyarrow.lib import ArrowException
    except ImportError as error:
        raise PackageMissing(f"Parquet needs a package ({error}); install petalpaw[tables]") from error
    with opened(location) as file:
        try:
            with pq.ParquetFile(file) as table:
                yield table
        except ArrowException as error:
            raise _damaged(location, error) from error
        except OSError as error:
            if error.errno is not None:  # else Arrow's own, of a page that makes no sense
                raise
            raise _damaged(location, error) from error


def _damaged(location: str, error: Exception) -> DataInvalid:
    words = " ".join(str(error).split())
    return DataInvalid(f"{printable(location)} is damaged or no Parquet file ({words}); write it again")


def _embedded(index: int, where: str, value: str) -> Item:
    """A `data:image/…;base64,…` address."""
    head, _, encoded = value.partition(",")
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        data = b""
    if not data or not head.endswith(";base64"):
        return FailedItem(index, where, f"the data address in {where} cannot be decoded; encode the picture as base64")
    return BytesItem(index, where, data)
