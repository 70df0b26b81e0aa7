"""A scoring run: source → engine → sink, counted, interruptible, never a row lost."""

import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Protocol

from scoring.progress import Progress, SilentProgress
from scoring.rows import Row
from scoring.sinks import Sink
from scoring.sources import Item, Source
from scoring.summary import Summary, Tally


class Engine(Protocol):
    """What turns inputs into rows: one per input, in order."""

    def rows(self, items: Iterator[Item], stop: threading.Event) -> Generator[Row]:
        """A row for every item taken. Once `stop` is set no more are taken; closed early, it ends at once."""


def score(source: Source, engine: Engine, sink: Sink, progress: Progress | None = None) -> Summary:
    """Score every input of `source` into `sink`, which is committed when all of them have their row.

    On Ctrl-C (or SIGTERM) the inputs in hand are finished and the sink keeps its rows uncommitted; the summary says
    so and where they are. A second Ctrl-C ends at once. Raises DataInvalid when there is nothing to score and
    OutputUnwritable when the sink takes no more; rows so far are kept.
    """
    tally = Tally()
    began = time.monotonic()
    with sink, interruptible() as stop, progress or SilentProgress() as shown:
        shown.start(source.count())
        items = _Counted(source)
        with closing(engine.rows(items, stop)) as rows:
            for row in rows:
                if row.id != tally.rows:
                    raise RuntimeError(f"row {row.id} came where row {tally.rows} belongs; please report it")
                sink.write(row)
                tally.add(row)
                shown.update(tally.rows, tally.failed)
        if tally.rows != items.taken or not (items.exhausted or stop.is_set()):
            raise RuntimeError(f"{items.taken} inputs gave {tally.rows} rows and the run ended; please report it")
        # A signal that arrived with the last row interrupted nothing.
        if items.exhausted:
            sink.commit()
    return tally.summary(seconds=time.monotonic() - began, interrupted=not items.exhausted, place=sink.place)


class _Counted:
    """The items of a source, how many were taken, and whether these were all."""

    def __init__(self, source: Source) -> None:
        self._items = iter(source)
        self.taken = 0
        self.exhausted = False

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            item = next(self._items)
        except StopIteration:
            self.exhausted = True
            raise
        self.taken += 1
        return item


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one acts as it did before.

    Python delivers signals to the main thread alone; elsewhere the event is only the caller's.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        restore()

    try:
        for number in before:
            signal.signal(number, on_signal)
        yield stop
    finally:
        restore()
