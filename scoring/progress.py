"""How far a run is, on standard error: a bar on a terminal, a plain line every few seconds elsewhere."""

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

LINE_SECONDS = 5.0
"""Time between two plain lines."""


class Progress(Protocol):
    """Told after every row; a context manager around the run."""

    def start(self, total: int | None, done: int = 0) -> None:
        """`total` inputs, where that is known, are about to be scored; earlier runs have done so many of them."""

    def update(self, done: int, failed: int) -> None:
        """So many rows are done, so many of them with an error."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None: ...


def progress_on(console: Console | None = None) -> Progress:
    """The fitting progress for a console, by default standard error."""
    console = console or Console(stderr=True)
    return BarProgress(console) if console.is_terminal else LineProgress(console)


class SilentProgress:
    """Says nothing."""

    def start(self, total: int | None, done: int = 0) -> None:
        """Ignored."""

    def update(self, done: int, failed: int) -> None:
        """Ignored."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Nothing to put away."""


class BarProgress(SilentProgress):
    """A bar with the rate, the time left and the errors so far."""

    def __init__(self, console: Console) -> None:
        self._bar = RichProgress(
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TextColumn("· {task.fields[failed]:,} errors ·"),
            TimeElapsedColumn(),
            TextColumn("· left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("", total=None, failed=0)

    def start(self, total: int | None, done: int = 0) -> None:
        """Show the bar."""
        # Reset, not update: what earlier runs did must not count for the rate.
        self._bar.reset(self._task, total=total, completed=done, failed=0)
        self._bar.start()

    def update(self, done: int, failed: int) -> None:
        """Move the bar; rich itself draws ten times a second."""
        self._bar.update(self._task, completed=done, failed=failed)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.stop()


class _RateColumn(ProgressColumn):
    """Rows per second, worked out when drawn and not for every row."""

    def render(self, task: Task) -> Text:
        return Text("–/s" if task.speed is None else f"{task.speed:,.1f}/s")


class LineProgress(SilentProgress):
    """A line like `1,200 of 5,000 (24 %) · 183.2/s · 3 errors · 21 s left` every `seconds`."""

    def __init__(self, console: Console, seconds: float = LINE_SECONDS) -> None:
        self._console = console
        self._seconds = seconds
        self._total: int | None = None
        self._resumed = 0
        self._started = self._next = 0.0

    def start(self, total: int | None, done: int = 0) -> None:
        """Say how much there is to do."""
        self._total = total
        self._resumed = done
        self._started = time.monotonic()
        self._next = self._started + self._seconds
        self._say("inputs are counted as they come" if total is None else f"{total:,} inputs")
        if done:
            self._say(f"{done:,} of them are done already")

    def update(self, done: int, failed: int) -> None:
        """Print a line when it is time."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._seconds
        rate = (done - self._resumed) / (now - self._started)
        said = f"{done:,}" if self._total is None else f"{done:,} of {self._total:,} ({done / max(self._total, 1):.0%})"
        said += f" · {rate:.1f}/s · {failed:,} errors"
        if self._total is not None and rate:
            said += f" · {_duration(max(self._total - done, 0) / rate)} left"
        self._say(said)

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    """`21 s`, `4 min 05 s` or `3 h 12 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
