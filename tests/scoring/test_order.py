"""What is under way in the local engine: its order, its bounds, its end."""

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
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


@pytest.mark.parametrize(("reading", "working", "elsewhere"), [(0, 0.002, False), (0.005, 0, True)])
def test_other_threads_read_where_one_does_not_keep_up(reading: float, working: float, elsewhere: bool) -> None:
    names: list[str] = []

    class Named(Number):
        def read(self) -> bytes:
            names.append(threading.current_thread().name)
            time.sleep(reading)
            return b""

    def work(_: Item, read: Callable[[], bytes]) -> None:
        read()
        time.sleep(working)

    results = in_order(work, map(Named, range(400)), streams=2, window=64, stop=threading.Event())
    assert sum(1 for _ in results) == len(names) == 400
    others = sum(name != "take" for name in names)
    assert others > 300 if elsewhere else others < 100
