"""What is under way in the local engine: its order, its bounds, its end."""

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import pytest

from scoring.order import READING_THREADS, in_order
from scoring.sources import Item
from tests.scoring.gauge import Gauge


@dataclass(frozen=True)
class Number:
    """An item that reads as nothing."""

    id: int

    @property
    def path(self) -> str:
        return ""

    def stamp(self) -> str:
        return ""

    def read(self) -> bytes:
        return b""


def ordered(
    items: Iterable[int], work: Callable[[int], Any], window: int = 16, stop: threading.Event | None = None
) -> Any:
    numbers = (Number(item) for item in items)
    return in_order(lambda item, _: work(item.id), numbers, streams=4, window=window, stop=stop or threading.Event())


def test_order_is_kept_when_the_first_are_slowest() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 8 == 0 else 0)
        return item

    assert list(ordered(range(100), work)) == list(range(100))


def test_window_bounds_what_is_done_behind_a_slow_one() -> None:
    taken, release = Gauge(), threading.Event()

    def items() -> Iterator[int]:
        for index in count():
            taken.highest = index
            yield index

    def work(item: int) -> int:
        assert item or release.wait(10)
        return item

    results = ordered(items(), work, window=40)
    first = threading.Thread(target=lambda: next(results))
    first.start()
    time.sleep(0.2)
    # As many as fit are done while the first one is not.
    assert taken.highest == 39
    release.set()
    first.join()
    results.close()


def test_results_come_as_soon_as_they_are_known() -> None:
    release = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        time.sleep(0.05)
        yield 1
        assert release.wait(10)
        yield 2

    results = ordered(items(), lambda item: item)
    assert next(results) == 0
    release.set()
    assert list(results) == [1, 2]


@pytest.mark.timeout(20)
def test_results_come_while_the_source_waits_and_stopping_does_not_wait_for_it() -> None:
    never, stop = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield from range(3)
        never.wait()

    results = ordered(items(), lambda item: item, stop=stop)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    stop.set()
    assert list(results) == []
    never.set()


def test_error_of_the_source_comes_after_the_results() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the source vanished")

    results = ordered(items(), lambda item: time.sleep(0.01) or item)
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(OSError, match="the source vanished"):
        next(results)


def test_closing_early_stops_the_threads() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.002)
        return item

    results = ordered(count(), work, window=64)
    assert next(results) == 0
    results.close()
    after = len(begun)
    time.sleep(0.03)
    assert len(begun) == after < 64


def test_inputs_that_are_done_are_let_go() -> None:
    alive: weakref.WeakSet[Number] = weakref.WeakSet()

    def items() -> Iterator[Number]:
        for index in range(20_000):
            made = Number(index)
            alive.add(made)
            yield made

    results = in_order(lambda _, read: read(), items(), streams=2, window=64, stop=threading.Event())
    assert max(len(alive) for _ in results) <= 70


def test_only_so_many_are_read_ahead() -> None:
    read, release = Gauge(), threading.Event()

    class Large(Number):
        def read(self) -> bytes:
            with read._lock:
                read.highest += 1
            return b""

    def work(item: Number, read: Callable[[], bytes]) -> None:
        read()
        assert release.wait(10)

    results = in_order(work, map(Large, count()), streams=2, window=64, stop=threading.Event())
    first = threading.Thread(target=lambda: next(results))
    first.start()
    time.sleep(0.1)
    assert read.highest <= 2 + 2 * READING_THREADS
    release.set()
    first.join()
    results.close()


def named(read: Callable[[int], None], numbers: Iterable[int]) -> Iterator[Number]:
    """Items whose reading is `read`."""

    class Named(Number):
        def read(self) -> bytes:
            read(self.id)
            return b""

    return map(Named, numbers)


def stalled(release: threading.Event) -> None:
    assert release.wait(10)


def test_quick_reads_are_done_several_on_one_thread() -> None:
    names: list[str] = []

    def work(_: Item, read: Callable[[], bytes]) -> None:
        read()
        time.sleep(0.002)

    items = named(lambda _: names.append(threading.current_thread().name), range(400))
    assert sum(1 for _ in in_order(work, items, streams=2, window=64, stop=threading.Event())) == len(names) == 400
    changes = sum(one != other for one, other in pairwise(names))
    assert changes < 200


def test_a_read_that_stalls_holds_up_nobody_else() -> None:
    release, done = threading.Event(), Gauge()

    def work(item: Item, read: Callable[[], bytes]) -> int:
        read()
        with done._lock:
            done.highest += 1
        return item.id

    items = named(lambda index: None if index != 20 else stalled(release), range(400))
    results = in_order(work, items, streams=2, window=256, stop=threading.Event())
    assert [next(results) for _ in range(20)] == list(range(20))
    deadline = time.monotonic() + 5
    while done.highest < 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done.highest >= 200
    release.set()
    assert list(results) == list(range(20, 400))


def test_each_is_read_once_though_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadPoolExecutor, "_adjust_thread_count", refuse)
    results = in_order(
        lambda _, data: data(), named(read.append, range(100)), streams=2, window=64, stop=threading.Event()
    )
    assert sum(1 for _ in results) == 100
    assert sorted(read) == list(range(100))


def test_an_item_in_whose_reading_the_run_is_stopped_has_its_outcome() -> None:
    stop = threading.Event()

    def slow(index: int) -> None:
        if index == 80:
            stop.set()
            time.sleep(0.4)

    results = in_order(lambda item, read: read() or item.id, named(slow, range(81)), streams=1, window=64, stop=stop)
    assert list(results) == list(range(81))


def test_no_thread_stays_when_one_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    before, start = threading.active_count(), threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name == "take":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        next(ordered(range(9), lambda item: item))
    assert threading.active_count() == before
