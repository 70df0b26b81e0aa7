"""A model of the service: cores, an interpreter lock per process, streams, and clients that ask again when answered.

An image costs time in the event loop, then in a stream; what runs Python needs its process's lock besides a core. Costs
are drawn evenly between half and one and a half times their mean.
"""

import itertools
import random
import statistics
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from inference.budget import SPARE_STREAMS, Budget

WARM_UP = 400
IMAGES = 4000


@dataclass(frozen=True)
class Costs:
    """CPU seconds per image: event loop, stream (of it `python` under the lock), and a client on the same cores."""

    loop: float
    stream: float
    python: float = 0.0
    client: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """Images per second, milliseconds, and how much of the time cores and the busiest lock were taken."""

    rate: float
    p50: float
    cores: float
    lock: float


class Pool:
    """So many of something, taken and given back in the order of asking."""

    def __init__(self, capacity: int) -> None:
        self.capacity = self.free = capacity
        self.waiting: deque[Actor] = deque()
        self.used = 0.0


Wish = tuple[str, Pool | float]
Actor = Iterator[Wish]


class Simulation:
    """`processes` share the cores; each has a lock, and the streams that the service plans for its share."""

    def __init__(self, costs: Costs, cores: int, processes: int = 1) -> None:
        self.costs, self.cores = costs, Pool(cores)
        self.locks = [Pool(1) for _ in range(processes)]
        plan = Budget.plan(cores=cores / processes, spare=SPARE_STREAMS)
        self.streams = [Pool(plan.streams) for _ in range(processes)]
        self.now, self.latencies = 0.0, list[float]()
        self._agenda: list[tuple[float, int, Actor]] = []
        self._order, self._dice = itertools.count(), random.Random(0)

    def run(self, clients: int) -> Outcome:
        for number in range(clients):
            self._at(0.0, self._client(number % len(self.locks)))
        began = 0.0
        while len(self.latencies) < WARM_UP + IMAGES:
            if len(self.latencies) < WARM_UP:
                began = self.now
            self.now, _, actor = heappop(self._agenda)
            self._go_on(actor)
        lock = max(pool.used for pool in self.locks) / self.now
        rate = IMAGES / (self.now - began)
        return Outcome(
            rate,
            1e3 * statistics.median(self.latencies[WARM_UP:]),
            self.cores.used / self.cores.capacity / self.now,
            lock,
        )

    def _client(self, process: int) -> Actor:
        costs, lock, streams = self.costs, self.locks[process], self.streams[process]
        while True:
            began = self.now
            yield from self._compute(costs.loop / 2, lock)
            yield "take", streams
            yield from self._compute(costs.python, lock)
            yield from self._compute(costs.stream - costs.python)
            yield "give", streams
            yield from self._compute(costs.loop / 2, lock)
            self.latencies.append(self.now - began)
            yield from self._compute(costs.client)

    def _compute(self, cost: float, lock: Pool | None = None) -> Actor:
        pools = [lock, self.cores] if lock else [self.cores]
        for pool in pools:
            yield "take", pool
        seconds = cost * self._dice.uniform(0.5, 1.5)
        for pool in pools:
            pool.used += seconds
        yield "spend", seconds
        for pool in reversed(pools):
            yield "give", pool

    def _at(self, moment: float, actor: Actor) -> None:
        heappush(self._agenda, (moment, next(self._order), actor))

    def _go_on(self, actor: Actor) -> None:
        """Until it has to wait."""
        for verb, what in actor:
            if not isinstance(what, Pool):
                return self._at(self.now + what, actor)
            if verb == "take" and not what.free:
                return what.waiting.append(actor)
            if verb == "take":
                what.free -= 1
            elif what.waiting:
                self._at(self.now, what.waiting.popleft())
            else:
                what.free += 1
        return None


def simulated(costs: Costs, cores: int, processes: int = 1, clients: int | None = None) -> Outcome:
    """Four clients a core, unless told otherwise: enough to keep all busy."""
    return Simulation(costs, cores, processes).run(clients or max(16, 4 * cores))


def fitted(costs: Costs, cores: int, rate: float, clients: int) -> Costs:
    """With the time under the lock in a stream that brings the model's rate on so many cores to the measured one."""
    low, high = 0.0, costs.stream
    for _ in range(12):
        middle = (low + high) / 2
        found = simulated(replace(costs, python=middle), cores, clients=clients).rate
        low, high = (middle, high) if found > rate else (low, middle)
    return replace(costs, python=low)
