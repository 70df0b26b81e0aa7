"""The engine for one machine: threads that read ahead, threads that compute, and rows in the order of the inputs.

On a CPU parallel streams of batch 1 beat batches, and an answer then equals the service's bit for bit. A GPU needs
batches. They end at fixed ids, so that a picture meets the same neighbours in a run that was interrupted.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from queue import Empty, SimpleQueue
from typing import TypeVar

from inference.budget import Budget
from inference.errors import ParameterInvalid, SourceGone
from scoring.rows import Row
from scoring.scorer import Prepared, Read, Scorer
from scoring.sources import Item

READING_THREADS = 16
"""Threads that only read: a disk or network is waited for there while the streams compute. A fast disk uses a few."""

_READ_AHEAD = READING_THREADS
"""Encoded pictures in memory beyond those that are being decoded."""

_WINDOW = 256
"""Inputs under way at most, done ones included: neighbours of a slow picture go on, and memory stays flat."""

_PATIENCE = 0.1
"""Seconds between looks at whether to stop while the source waits."""

Outcome = TypeVar("Outcome")


class LocalEngine:
    """Scores with one classifier on this machine.

    `streams` pictures are decoded (and on a CPU inferred) at once, by default as many as the CPU budget allows.
    """

    def __init__(self, scorer: Scorer, *, streams: int | None = None) -> None:
        """Raises ParameterInvalid for fewer than one stream."""
        self.scorer = scorer
        self.batch_size = scorer.batch_size
        self.fingerprint = scorer.fingerprint
        self.columns = scorer.settings.columns
        self.streams = Budget.plan().streams if streams is None else streams
        if self.streams < 1:
            raise ParameterInvalid(f"streams is {self.streams}, it must be 1 or more")

    def rows(self, items: Iterable[Item], stop: threading.Event | None = None) -> Generator[Row]:
        """One row per input, in order; no picture, good or bad, harms another. Raises SourceGone.

        Once `stop` is set, no further input is taken; those in hand still become rows.
        """
        stop = stop or threading.Event()
        if self.batch_size == 1:
            return in_order(self.scorer.row, items, streams=self.streams, window=_WINDOW, stop=stop)
        window = max(_WINDOW, 4 * self.batch_size)
        return self._in_batches(
            in_order(
                self.scorer.prepared, items, streams=self.streams, window=window, stop=stop, multiple=self.batch_size
            )
        )

    def _in_batches(self, prepared: Generator[Prepared]) -> Generator[Row]:
        """Infer in batches while the pool prepares what comes next."""
        held: list[Prepared] = []
        for each in prepared:
            held.append(each)
            if (each.row.id + 1) % self.batch_size == 0:
                yield from self.scorer.rows(held)
                held = []
        yield from self.scorer.rows(held)


def in_order(
    work: Callable[[Item, Read], Outcome],
    items: Iterable[Item],
    *,
    streams: int,
    window: int,
    stop: threading.Event,
    multiple: int = 1,
) -> Generator[Outcome]:
    """`work(item, read)` for every item, on `streams` threads, yielded in the order of `items`.

    Other threads have usually read the item when `read()` is called. At most `window` items are under way, however
    many there are. After `stop` is set no further item is taken, but for those up to the next `multiple` of ids, and
    those that were taken are finished and yielded. So they are before an error of `items` itself is raised.
    """
    reading = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="read")
    computing = ThreadPoolExecutor(streams, thread_name_prefix="compute")
    room, places = threading.Semaphore(streams + _READ_AHEAD), threading.Semaphore(window)
    under_way: SimpleQueue[Future[Outcome] | None] = SimpleQueue()
    source = Guarded(items)
    ended, submitting = threading.Event(), threading.Lock()
    read = _Reader()

    def take() -> None:
        """Put items under way, each when it has its place, until there are no more or `stop` is set."""
        while places.acquire() and not ended.is_set() and (item := next(source, None)) is not None:
            # Taken here, in the order of the items, so that the item that is waited for always has its place.
            room.acquire()
            with submitting:
                if ended.is_set():
                    return
                outcome = computing.submit(work, item, reading.submit(read, item).result)
            outcome.add_done_callback(lambda _: room.release())
            under_way.put(outcome)
            if stop.is_set() and (item.id + 1) % multiple == 0:
                break
            del item, outcome
        under_way.put(None)

    finished = False
    try:
        # A source may wait for its next item, standard input above all; what is done meanwhile is yielded.
        threading.Thread(target=take, name="take", daemon=True).start()
        for outcome in _until_idle(under_way, stop, multiple):
            done = outcome.result()
            places.release()
            yield done
        finished = True
        if source.error is not None:
            raise source.error
    finally:
        with submitting:
            ended.set()
        places.release()
        room.release()
        # Who interrupted twice waits for no thread: it may be reading what never comes.
        wait = finished or not stop.is_set()
        computing.shutdown(wait=wait, cancel_futures=True)
        reading.shutdown(wait=wait, cancel_futures=True)


class _Reader:
    """Reads items. Of a source that went away nothing more is asked: what comes later ends as what found it gone."""

    def __init__(self) -> None:
        self._gone: SourceGone | None = None

    def __call__(self, item: Item) -> bytes:
        if self._gone is not None:
            raise self._gone
        try:
            return item.read()
        except SourceGone as error:
            self._gone = error
            raise


def _until_idle(
    under_way: "SimpleQueue[Future[Outcome] | None]", stop: threading.Event, multiple: int
) -> Iterator[Future[Outcome]]:
    """What was put there until None, or, once `stop` is set, until a source that waits gives no more."""
    for taken in count():
        while True:
            try:
                outcome = under_way.get(timeout=_PATIENCE)
                break
            except Empty:
                if stop.is_set() and taken % multiple == 0:
                    return
        if outcome is None:
            return
        yield outcome


class Guarded:
    """Items until the first error, which is kept for later."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            return next(self._items)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise StopIteration from error
