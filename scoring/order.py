"""Work on many inputs at once, with the outcomes in the order of the inputs.

    source → taken → read → a stream's work → yielded

What is done for several inputs at once costs a third of what it costs between two inferences, which leave nothing of it
in the processor's caches. So who takes from the source, who reads and who yields are each woken for several inputs.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from inference.errors import SourceGone
from scoring.scorer import Read
from scoring.sources import Item

READING_THREADS = 16
"""Threads that only read: a slow disk or network is waited for there while the streams compute."""

_AHEAD = READING_THREADS
"""Inputs that wait for a stream at most: each is in memory, or on its way there."""

_GROUP = 8
"""Inputs that are taken, and read one after the other, for one waking, as long as reading keeps up."""

_TOGETHER = 16
"""Outcomes that are worth waking whoever yields them."""

_PATIENCE = 0.1
"""Seconds until outcomes are yielded though they are fewer, and between looks at whether to stop."""

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

    The item has usually been read when `read()` is called, which is to be once. At most `window` items are under way,
    however many there are. After `stop` is set no further item is taken, but for those up to the next `multiple` of
    ids, and those that were taken are finished and yielded. So they are before an error of `items` itself is raised.
    """
    line = _Line(work, window)
    reading = _Reading()
    source = Guarded(items)

    def take() -> None:
        """Put items under way, each when it has its place, until there are no more or `stop` is set."""
        try:
            while line.has_room(reading.is_behind()) and (item := next(source, None)) is not None:
                line.put(item, reading.of(item))
                if stop.is_set() and (item.id + 1) % multiple == 0:
                    break
                del item
        finally:
            line.end()

    # A source may wait for its next item, standard input above all; what is done meanwhile is yielded.
    taking = threading.Thread(target=take, name="take", daemon=True)
    computing = [threading.Thread(target=line.compute, name="compute", daemon=True) for _ in range(streams)]
    finished = False
    try:
        for thread in (*computing, taking):
            thread.start()
        yield from line.outcomes(stop, multiple)
        finished = True
        if source.error is not None:
            raise source.error
    finally:
        line.close()
        # Who interrupted twice waits for no thread: it may be reading what never comes.
        wait = finished or not stop.is_set()
        reading.close(wait=wait)
        for thread in computing:
            if wait and thread.is_alive():
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
        self._taken = self._undone = 0
        self._refill = 0
        self._ended = self._closed = False

    def has_room(self, hurry: bool) -> bool:
        """Wait until another item may be taken, in a hurry until a single one may. False once the line is closed."""
        with self._room:
            if len(self._waiting) >= _AHEAD:
                self._refill = _AHEAD - (1 if hurry else _GROUP)
                self._room.wait_for(lambda: self._closed or len(self._waiting) <= self._refill)
            if len(self._under_way) >= self._window:
                self._room.wait_for(lambda: self._closed or len(self._under_way) <= self._window // 2)
            return not self._closed

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
                self._waits.wait()
            waiting = self._waiting.popleft()
            if len(self._waiting) == self._refill:
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
    """Reads items ahead of the streams: several on one thread while that keeps up, else each on a thread of its own.

    Of a source that went away nothing more is asked: what comes later ends as what found it gone.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="read")
        self._gone: SourceGone | None = None
        self._closed = False
        self._group: deque[_Encoded] = deque()
        self._unfinished: list[Future[None]] = []

    def is_behind(self) -> bool:
        """Whether something is still being read that was to be read before."""
        self._unfinished = [task for task in self._unfinished if not task.done()]
        return bool(self._unfinished)

    def of(self, item: Item) -> Read:
        """What gives the item's bytes when they are wanted, or raises what reading raised."""
        encoded = _Encoded(partial(self._read, item))
        self._group.append(encoded)
        if self.is_behind():
            while self._group:
                self._start(deque([self._group.popleft()]))
        elif len(self._group) >= _GROUP:
            group, self._group = self._group, deque()
            self._start(group)
        return encoded

    def _start(self, group: "deque[_Encoded]") -> None:
        # Closed meanwhile, or no thread can be had: whoever wants one reads it.
        with suppress(RuntimeError):
            self._unfinished.append(self._threads.submit(_fetch, group))

    def _read(self, item: Item) -> bytes:
        if self._gone is not None:
            raise self._gone
        if self._closed:
            raise CancelledError
        try:
            return item.read()
        except SourceGone as error:
            self._gone = error
            raise

    def close(self, *, wait: bool) -> None:
        """End the threads; what they have not begun is dropped."""
        self._closed = True
        self._threads.shutdown(wait=wait, cancel_futures=True)


class _Encoded:
    """The bytes of an item, read once, by whoever comes first: a reading thread, or the stream that wants them."""

    def __init__(self, read: Read) -> None:
        self._data: Future[bytes] = Future()
        self._unread = [(read, self._data)]

    def fetch(self) -> None:
        """Read it, unless somebody else does."""
        try:
            read, data = self._unread.pop()
        except IndexError:
            return
        try:
            data.set_result(read())
        except BaseException as error:  # noqa: BLE001 – raised where the bytes are wanted
            data.set_exception(error)

    def __call__(self) -> bytes:
        """Raises what reading raised. To be called once: a group that is still being read keeps nothing of it."""
        self.fetch()
        data, self._data = self._data, Future()
        return data.result()


def _fetch(group: "deque[_Encoded]") -> None:
    while group:
        group.popleft().fetch()


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
