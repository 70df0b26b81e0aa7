"""What a scoring run came to."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from scoring.journal import Part
from scoring.rows import Row

ALL_ANSWERED, SOME_FAILED, NOTHING_DONE = 0, 1, 3
INTERRUPTED = 130
"""What shells report for a program that Ctrl-C ended."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of a finished or interrupted run; `labels` and `errors` are sorted, largest first.

    `rows` = `answered` + `failed`; `abstained` are those among the answered that the classifier is not sure of;
    `resumed` of the rows were committed by earlier runs. `place` says where the rows are, `resumable` whether the same
    command would go on from there. `seconds` is the wall-clock time of this run. `tolerated` is the share of inputs,
    0…1, that may fail before the exit status says so.
    """

    rows: int
    answered: int
    failed: int
    abstained: int
    resumed: int
    labels: Mapping[str, int]
    errors: Mapping[str, int]
    seconds: float
    interrupted: bool
    resumable: bool
    place: str
    tolerated: float = 0.0

    @property
    def exit_status(self) -> int:
        """0 all that must be answered was, 1 too many inputs failed, 3 there was no input, 130 interrupted."""
        if self.interrupted:
            return INTERRUPTED
        if not self.rows:
            return NOTHING_DONE
        return SOME_FAILED if self.failed > self.tolerated * self.rows else ALL_ANSWERED

    def to_json(self) -> str:
        """The summary as one JSON object."""
        return json.dumps({**asdict(self), "exit_status": self.exit_status}, ensure_ascii=False)

    def __str__(self) -> str:
        now = self.rows - self.resumed
        rate = now / self.seconds if self.seconds else 0.0
        head = f"{now:,} rows in {self.seconds:.1f} s ({rate:.1f}/s) → {self.place}"
        if self.resumed:
            head += f", after {self.resumed:,} of earlier runs"
        hint = "; run the same command again to go on" if self.resumable else ""
        lines = [f"Interrupted: {head}{hint}" if self.interrupted else head]
        lines += _table("answered", self.answered, self.labels)
        if self.abstained:
            lines.append(f"  not sure of {self.abstained:,} of them (abstained)")
        if self.failed:
            lines += _table(f"failed ({self.failed / self.rows:.1%})", self.failed, self.errors)
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

    def add_part(self, part: Part) -> None:
        """Count the rows of a part."""
        self.rows += part.rows
        self.abstained += part.abstained
        self.labels.update(part.labels)
        self.errors.update(part.errors)

    @property
    def failed(self) -> int:
        """Rows with an error so far."""
        return self.errors.total()

    def summary(
        self, *, seconds: float, interrupted: bool, place: str, resumed: int = 0, resumable: bool = True
    ) -> Summary:
        """The counts so far as the result of a run."""
        return Summary(
            rows=self.rows,
            answered=self.labels.total(),
            failed=self.failed,
            abstained=self.abstained,
            resumed=resumed,
            labels=dict(_largest_first(self.labels)),
            errors=dict(_largest_first(self.errors)),
            seconds=seconds,
            interrupted=interrupted,
            resumable=resumable,
            place=place,
        )


def _largest_first(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
