"""What a scoring run came to."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from scoring.rows import Row

ALL_ANSWERED, SOME_FAILED, NOTHING_DONE = 0, 1, 3
INTERRUPTED = 130
"""What shells report for a program that Ctrl-C ended."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of a finished or interrupted run; `labels` and `errors` are sorted, largest first.

    `rows` = `answered` + `failed`; `abstained` are those among the answered that the classifier is not sure of.
    `place` says where the rows are. `seconds` is wall-clock time.
    """

    rows: int
    answered: int
    failed: int
    abstained: int
    labels: Mapping[str, int]
    errors: Mapping[str, int]
    seconds: float
    interrupted: bool
    place: str

    @property
    def exit_status(self) -> int:
        """0 every input was answered, 1 some failed, 3 there was no input, 130 interrupted."""
        if self.interrupted:
            return INTERRUPTED
        if not self.rows:
            return NOTHING_DONE
        return SOME_FAILED if self.failed else ALL_ANSWERED

    def to_json(self) -> str:
        """The summary as one JSON object."""
        return json.dumps({**asdict(self), "exit_status": self.exit_status}, ensure_ascii=False)

    def __str__(self) -> str:
        rate = self.rows / self.seconds if self.seconds else 0.0
        head = f"{self.rows:,} rows in {self.seconds:.1f} s ({rate:.1f}/s) → {self.place}"
        lines = [f"Interrupted: {head}" if self.interrupted else head]
        lines += _table("answered", self.answered, self.labels)
        if self.abstained:
            lines.append(f"  not sure of {self.abstained:,} of them (abstained)")
        if self.failed:
            lines += _table("failed", self.failed, self.errors)
        return "\n".join(lines)


def _table(what: str, total: int, counts: Mapping[str, int]) -> list[str]:
    return [f"{what}: {total:,}", *(f"  {count:>9,}  {name}" for name, count in counts.items())]


@dataclass(slots=True)
class Tally:
    """Counts while a run goes on."""

    rows: int = 0
    abstained: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count one row."""
        self.rows += 1
        if row.error_code is not None:
            self.errors[row.error_code] += 1
        elif row.label is not None:
            self.labels[row.label] += 1
            self.abstained += bool(row.abstained)

    @property
    def failed(self) -> int:
        """Rows with an error so far."""
        return self.errors.total()

    def summary(self, *, seconds: float, interrupted: bool, place: str) -> Summary:
        """The counts so far as the result of a run."""
        return Summary(
            rows=self.rows,
            answered=self.labels.total(),
            failed=self.failed,
            abstained=self.abstained,
            labels=dict(_largest_first(self.labels)),
            errors=dict(_largest_first(self.errors)),
            seconds=seconds,
            interrupted=interrupted,
            place=place,
        )


def _largest_first(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
