"""How far a long step has come, its rate and the time left: a bar on a terminal, a line now and then elsewhere.

Everything goes to stderr; stdout stays free for data.
"""

import sys
import time
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from inference import torchrun

Value = TypeVar("Value")

LINE_EVERY = 10.0
"""Seconds between two lines where stderr is not a terminal."""


class Progress:
    """A context over `total` units of one `unit`; `step` advances by `count` and hands its first argument back."""

    def __init__(self, what: str, total: int, unit: str = "photos") -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done, self._started, self._said = 0, 0.0, 0.0
        self._bar: Bar | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        self._started = self._said = time.monotonic()
        if sys.stderr.isatty() and torchrun.rank() == 0:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._what, total=self._total, rate="", note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, value: Value, count: int = 1, note: str = "") -> Value:
        """Count `count` more units as done; `note` is a figure to show beside them."""
        self._done += count
        now = time.monotonic()
        rate = self._done / max(now - self._started, 1e-6)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=f"{rate:,.0f} {self._unit}/s", note=note)
        elif now - self._said >= LINE_EVERY:
            self._said = now
            left = (self._total - self._done) / rate
            say(f"{self._what}: {self._done}/{self._total}, {rate:,.0f} {self._unit}/s, {left:,.0f} s left {note}")
        return value


def say(line: str, rank: int = 0) -> None:
    """One line on stderr; of several processes only that of the given rank says it."""
    if torchrun.rank() == rank:
        print(line.rstrip(), file=sys.stderr, flush=True)  # noqa: T201 – this is where progress is printed
