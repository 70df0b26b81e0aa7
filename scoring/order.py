"""Work on many inputs at once, with the outcomes in the order of the inputs.

    source → taken → a stream's work → yielded

What is done for several inputs at once costs a third of what it costs between two inferences, which leave nothing of it
in the processor's caches. So who takes from the source is woken for several inputs, and reads them by itself where that
is quick; who yields is woken for several outcomes.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

from inference.errors import SourceGone
from scoring.scorer import Read
from scoring.sources import Item

READING_THREADS = 16
"""Threads that only read: a slow disk or network is waited for there while the streams compute."""

_LEAST_AHEAD, _MOST_AHEAD = READING_THREADS, READING_THREADS + 8
"""Inputs that wait for a stream: each is in memory, or on its way there. More are taken when they are the least."""

_TOGETHER = 16
"""Outcomes that are worth waking whoever yields them."""

_PATIENCE = 0.1
"""Seconds until outcomes are yielded though they are fewer, and between looks at whether to stop."""

_FEW, _MANY = 32, 4096
"""Inputs that are read on other threads until one thread is given another chance to keep up with the streams."""

Outcome = TypeVar("Outcome")


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

    The item has usually been read when `read()` is called. At most `window` items are under
    way, however many there are. After `stop` is set no further item is taken, but for those up to the next `multiple`
    of ids, and those that were taken are finished and yielded. So they are before an error of `items` itself is raised.
    """
    line = _Line(work, window)
    reading = _Reading()
    source = Guarded(items)

    def take() -> None:
        """Put items under way, each when it has its place, until there are no more or `stop` is set."""
        try:
            while line.has_room() and (item := next(source, None)) is not None:
                line.put(item, reading.of(item, line.is_idle))
                if stop.is_set() and (item.id + 1) % multiple == 0:
                    break
                del item
        finally:
            line.end()

    # A source may wait for its next item, standard input above all; what is done meanwhile is yielded.
    threading.Thread(target=take, name="take", daemon=True).start()
    computing = [threading.Thread(target=line.compute, name="compute", daemon=True) for _ in range(streams)]
    for thread in computing:
        thread.start()
    finished = False
    try:
        yield from line.outcomes(stop, multiple)
        finished = True
        if source.error is not None:
            raise source.error
    finally:
        line.close()
        # Who interrupted twice waits for no thread: it may be reading what never comes.
        wait = finished or not stop.is_set()
        reading.close(wait=wait)
        for thread in computing if wait else ():
            thread.join()


class _Line(Generic[Outcome]):
    """The inputs under way: those that wait for a stream, and the outcomes of all, in order, until they are yielded."""

    def __init__(self, work: Callable[[Item, Read], Outcome], window: int) -> None:
        self._work = work
        self._window = window
        lock = threading.Lock()
        self._room, self._waits, self._done = (threading.Condition(lock) for _ in range(3))
        self._waiting: deque[tuple[Item, Read, Future[Outcome]]] = deque()
        self._under_way: deque[Future[Outcome]] = deque()
        self._taken = self._undone = self._idle = 0
        self._ended = self._closed = False

    def has_room(self) -> bool:
        """Wait until another item may be taken. False once the line is closed."""
        with self._room:
            if len(self._waiting) >= _MOST_AHEAD:
                self._room.wait_for(lambda: self._closed or len(self._waiting) <= _LEAST_AHEAD)
            if len(self._under_way) >= self._window:
                self._room.wait_for(lambda: self._closed or len(self._under_way) <= self._window // 2)
            return not self._closed

    def is_idle(self) -> bool:
        """Whether a stream has nothing to do."""
        return self._idle > 0

    def put(self, item: Item, read: Read) -> None:
        """Put an item under way."""
        outcome: Future[Outcome] = Future()
        with self._waits:
            if self._closed:
                return
            self._taken += 1
            self._undone += 1
            self._waiting.append((item, read, outcome))
            self._under_way.append(outcome)
            self._waits.notify()

    def end(self) -> None:
        """No more items will come."""
        with self._waits:
            self._ended = True
            self._waits.notify_all()
            self._done.notify()

    def close(self) -> None:
        """Nothing more is wanted: what no stream has begun is dropped."""
        with self._waits:
            self._ended = self._closed = True
            self._waiting.clear()
            self._waits.notify_all()
            self._room.notify()

    def compute(self) -> None:
        """A stream: works on what waits until all is done."""
        while (waiting := self._next()) is not None:
            item, read, outcome = waiting
            try:
                outcome.set_result(self._work(item, read))
            except BaseException as error:  # noqa: BLE001 – raised where the outcome would be yielded
                outcome.set_exception(error)
            del waiting, item, read, outcome  # they may be large, and the next one may be long in coming
            self._count()

    def _next(self) -> tuple[Item, Read, Future[Outcome]] | None:
        with self._waits:
            while not self._waiting:
                if self._ended:
                    return None
                self._idle += 1
                self._waits.wait()
                self._idle -= 1
            waiting = self._waiting.popleft()
            if len(self._waiting) == _LEAST_AHEAD:
                self._room.notify()
            return waiting

    def _count(self) -> None:
        with self._done:
            self._undone -= 1
            is_due = len(self._under_way) - self._undone >= _TOGETHER or not self._waiting
            if is_due and self._is_next_done():
                self._done.notify()

    def _is_next_done(self) -> bool:
        return bool(self._under_way) and self._under_way[0].done()

    def outcomes(self, stop: threading.Event, multiple: int) -> Iterator[Outcome]:
        """In order, to the last, or, once `stop` is set, until a source that waits gives no more."""
        while (outcome := self._wait(stop, multiple)) is not None:
            yield outcome.result()

    def _wait(self, stop: threading.Event, multiple: int) -> Future[Outcome] | None:
        with self._done:
            while not self._is_next_done():
                if not self._under_way and self._ended:
                    return None
                is_idle = not self._done.wait(_PATIENCE)
                if is_idle and not self._under_way and stop.is_set() and self._taken % multiple == 0:
                    return None
            outcome = self._under_way.popleft()
            if len(self._under_way) == self._window // 2:
                self._room.notify()
            return outcome


class _Reading:
    """Reads items ahead of the streams: one after the other where that keeps them busy, else on threads of its own.

    Of a source that went away nothing more is asked: what comes later ends as what found it gone.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(READING_THREADS - 1, thread_name_prefix="read")
        self._gone: SourceGone | None = None
        self._left = self._share = _FEW
        self._in_time = 0

    def of(self, item: Item, is_late: Callable[[], bool]) -> Read:
        """What gives the item's bytes when they are wanted, or raises what reading raised.

        `is_late` says whether a stream waits for it.
        """
        if self._left:
            self._left -= 1
            try:
                return self._threads.submit(self._read, item).result
            except RuntimeError:  # closed meanwhile, or no thread can be had: whoever wants it reads it
                return partial(self._read, item)
        done: Future[bytes] = Future()
        try:
            done.set_result(self._read(item))
        except Exception as error:  # noqa: BLE001 – raised where the bytes are wanted
            done.set_exception(error)
        if is_late():
            self._left, self._share, self._in_time = self._share, min(2 * self._share, _MANY), 0
        else:
            self._in_time += 1
            if self._in_time == _FEW:
                self._share = _FEW
        return done.result

    def _read(self, item: Item) -> bytes:
        if self._gone is not None:
            raise self._gone
        try:
            return item.read()
        except SourceGone as error:
            self._gone = error
            raise

    def close(self, *, wait: bool) -> None:
        """End the threads; what they have not begun is dropped."""
        self._threads.shutdown(wait=wait, cancel_futures=True)


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
