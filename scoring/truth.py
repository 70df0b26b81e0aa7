"""The true class of an input: the name of a folder that it lies in, or the value of a table's column."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from inference.errors import DataInvalid
from scoring.rows import Row, printable
from scoring.sources import Source
from scoring.tables import Table

Truth = Callable[[Row], int | None]
"""Asked once per row, in order: the class index, or None where the source does not say."""

_LOOKED_AT = 1000


def folder_truth(source: Source, labels: Sequence[str]) -> Truth:
    """The nearest folder above a picture that is named like a class. Raises DataInvalid where none is."""
    indices = {printable(label): index for index, label in enumerate(labels)}

    def truth_of(path: str) -> int | None:
        return next((indices[part] for part in reversed(path.split("/")[:-1]) if part in indices), None)

    items = [item.path for item, _ in zip(source, range(_LOOKED_AT), strict=False)]
    if items and all(truth_of(path) is None for path in items):
        raise DataInvalid(
            f"{source.description}: none of the first {len(items):,} pictures lies in a folder that is named like a "
            f"class ({_listed(labels)}); put each class into a folder of its name, or name a column with --labels"
        )
    return lambda row: truth_of(row.path)


def column_truth(table: Table, labels: Sequence[str]) -> Truth:
    """The column of true classes, by name or by index, of the very table whose pictures are scored.

    Raises DataInvalid where no value is a class.
    """
    indices = {str(index): index for index in range(len(labels))}
    indices |= {label: index for index, label in enumerate(labels)}

    def truth_of(value: object) -> int | None:
        return indices.get(str(value).strip())

    if all(truth_of(value) is None for value in table.values()):
        first = ", ".join(printable(repr(value)) for value in islice(table.values(), 3)) or "no value"
        raise DataInvalid(
            f"{table.description} names no class of the model's: it begins with {first}; its values must be among "
            f"{_listed(labels)}, or their indices"
        )
    values: Iterator[object] = table.values()
    return lambda _: truth_of(next(values, ""))


def _listed(labels: Sequence[str], most: int = 10) -> str:
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(map(printable, labels[:most])) + more
