"""Who is let in: the queue is bounded by the seconds of work that it holds, not by the number of its pictures.

    picture's header → pixels × the model's seconds per pixel ──┐
                          + the model's seconds per picture ────┴→ expected seconds → queue → a newcomer's wait

Both rates are measured on every picture that goes through, on the streams, so they hold whatever else slows these; the
header's claim is only ever multiplied, and what a rate learns is the picture that came out. Decoding has a rate per
model because models differ in it: one with drafts takes less than half the time for a large photo.
Nothing but the event loop changes the queue; the rates are changed from any thread.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter

from inference.errors import Overloaded
from service.call import Call

_KEPT = 0.98
"""What is left of an observation's weight after the next: a rate is that of the latest fifty or so."""

_FIXED_PIXELS = 50_000
"""What opening, resizing and cutting a picture of any size costs, in pixels: without it, thousands of tiny ones would
make a large one look endless."""

_HEAVY_PIXELS = 4_000_000
"""Where a picture's weight in the rate ends: a few of huge plain areas must not speak for everybody's photos."""

_MAX_RETRY_S = 30
"""Longest advice; whatever is expected, the queue is likely to look different by then."""

_GUESSED_DECODING = (0.02, 1_000_000.0)
_GUESSED_INFERENCE = (0.01, 1.0)
"""Seconds and units before anything was measured; a few pictures outweigh them."""


class Rate:
    """Seconds per unit of work: a running quotient of sums, in which a large piece of work counts as much as it is."""

    def __init__(self, guess: tuple[float, float]) -> None:
        self._sums = guess

    @contextmanager
    def timed(self, units: float = 1.0) -> Iterator[None]:
        """Observe how long `units` take; work that fails says nothing about work that does not."""
        start = perf_counter()
        yield
        self.observe(perf_counter() - start, units)

    def observe(self, seconds: float, units: float) -> None:
        """So many seconds went into so many units."""
        before_s, before = self._sums
        # One assignment: a thread in between loses its observation, and nothing else.
        self._sums = (before_s * _KEPT + seconds, before * _KEPT + units)

    def seconds(self, units: float = 1.0) -> float:
        """What `units` are expected to take."""
        seconds, per = self._sums
        return seconds / per * units


class Work:
    """Expected seconds of some pictures, and how many they are."""

    def __init__(self) -> None:
        self.seconds, self.pictures = 0.0, 0

    @contextmanager
    def holds(self, expected_s: float) -> Iterator[None]:
        """One more, until its end."""
        self.seconds += expected_s
        self.pictures += 1
        try:
            yield
        finally:
            self.pictures -= 1
            # Sums of floating-point numbers drift; an empty queue is empty.
            self.seconds = self.seconds - expected_s if self.pictures else 0.0


class Admission:
    """The queue in front of `streams` that decode and `lanes` that infer (by default the same streams).

    A picture is in the queue from its request's admission to its end, or to the end of a request that ends before the
    picture's turn. Few pictures of one request have their turn at once (`Turns`), and a newcomer's first waits for
    no others.
    """

    def __init__(self, streams: int, max_queue_s: float = math.inf, lanes: int | None = None) -> None:
        self.max_queue_s = max_queue_s
        self._streams, self._lanes = streams, lanes or streams
        # One huge picture keeps one stream busy; as long as another is free, it is no reason to refuse anybody.
        self._longest_s = max_queue_s / streams
        self._decoding: dict[str, Rate] = {}
        self._inference: dict[str, Rate] = {}
        self._queued, self._turns = Work(), Work()

    @property
    def pictures(self) -> int:
        """How many have their turn."""
        return self._turns.pictures

    @property
    def wait_s(self) -> float:
        """Seconds until all that was let in is done, and a request of several pictures begins at the latest."""
        return self._queued.seconds

    @property
    def turn_s(self) -> float:
        """Seconds until a picture whose turn came now would be under way; at most `wait_s`."""
        return self._turns.seconds

    def decoded(self, pixels: int, seconds: float, digest: str) -> None:
        """Observe the decoding of one picture for one model, by the pixels that it turned out to have."""
        weight = min(1.0, _HEAVY_PIXELS / pixels)
        self._decoding_of(digest).observe(seconds * weight, (pixels + _FIXED_PIXELS) * weight)

    def inference(self, digest: str) -> Rate:
        """The rate of one model, per picture."""
        return self._inference.setdefault(digest, Rate(_GUESSED_INFERENCE))

    def admit(self, call: Call, pictures: int = 1) -> None:
        """Let a request of so many pictures in: one waits for those that have their turn, several for all in the queue.

        Raises Overloaded when that is too long, in itself or for this request's deadline; DeadlineExceeded after it.
        """
        call.check()
        wait_s = self.turn_s if pictures == 1 else self.wait_s
        if wait_s > self.max_queue_s:
            limit = f"{self.max_queue_s:g} s are allowed"
        elif self.turn_s > call.remaining:
            limit = f"this request has {call.remaining:.2g} s left"
        else:
            return
        seconds = min(max(1, math.ceil(wait_s)), _MAX_RETRY_S)
        raise Overloaded(f"the queue is {wait_s:.1f} s long, {limit}; try again in {seconds} s", seconds)

    @contextmanager
    def queued(self, pixels: int, digest: str) -> Iterator[float]:
        """One picture of so many pixels (0 when it is decoded already) in the queue: the seconds it is expected to add.

        Its request was let in.
        """
        decoding = self._decoding_of(digest).seconds(pixels + _FIXED_PIXELS) if pixels else 0.0
        expected_s = decoding / self._streams + self.inference(digest).seconds() / self._lanes
        expected_s = min(expected_s, self._longest_s)
        with self._queued.holds(expected_s):
            yield expected_s

    def turn(self, expected_s: float) -> AbstractContextManager[None]:
        """The same picture from its turn to its end."""
        return self._turns.holds(expected_s)

    def _decoding_of(self, digest: str) -> Rate:
        return self._decoding.setdefault(digest, Rate(_GUESSED_DECODING))
