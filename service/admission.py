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
from contextlib import contextmanager
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


class Admission:
    """The queue in front of `streams` that decode and `lanes` that infer (by default the same streams).

    A picture is in the queue from its turn to its end. A request of many takes few turns at once, so that it counts
    for little in the wait of others, and waits anew for each of its later turns.
    """

    def __init__(self, streams: int, max_queue_s: float = math.inf, lanes: int | None = None) -> None:
        self.pictures = 0
        self._max_queue_s = max_queue_s
        self._streams, self._lanes = streams, lanes or streams
        # One huge picture keeps one stream busy; as long as another is free, it is no reason to refuse anybody.
        self._longest_s = max_queue_s / streams
        self._decoding: dict[str, Rate] = {}
        self._inference: dict[str, Rate] = {}
        self._queued_s = 0.0

    @property
    def wait_s(self) -> float:
        """Seconds until a picture that came now would be under way."""
        return self._queued_s

    def decoded(self, pixels: int, seconds: float, digest: str) -> None:
        """Observe the decoding of one picture for one model, by the pixels that it turned out to have."""
        weight = min(1.0, _HEAVY_PIXELS / pixels)
        self._decoding_of(digest).observe(seconds * weight, (pixels + _FIXED_PIXELS) * weight)

    def inference(self, digest: str) -> Rate:
        """The rate of one model, per picture."""
        return self._inference.setdefault(digest, Rate(_GUESSED_INFERENCE))

    def admit(self, call: Call, turns: int = 1) -> None:
        """Let a request in that will wait `turns` times, one after the other.

        Raises Overloaded when the queue is full, or too long for this request's deadline; DeadlineExceeded after it.
        """
        call.check()
        wait = self._queued_s
        if wait > self._max_queue_s:
            limit = f"{self._max_queue_s:g} s are allowed"
        elif wait * turns > call.remaining:
            limit = f"this request has {call.remaining:.2g} s left and needs {turns} turn(s)"
        else:
            return
        seconds = min(max(1, math.ceil(wait)), _MAX_RETRY_S)
        raise Overloaded(f"the queue is {wait:.1f} s long, {limit}; try again in {seconds} s", seconds)

    @contextmanager
    def turn(self, pixels: int, digest: str) -> Iterator[None]:
        """One picture of so many pixels (0 when it is decoded already) from its turn to its end."""
        decoding = self._decoding_of(digest).seconds(pixels + _FIXED_PIXELS) if pixels else 0.0
        expected = decoding / self._streams + self.inference(digest).seconds() / self._lanes
        expected = min(expected, self._longest_s)
        self._queued_s += expected
        self.pictures += 1
        try:
            yield
        finally:
            self.pictures -= 1
            # Sums of floating-point numbers drift; an empty queue is empty.
            self._queued_s = self._queued_s - expected if self.pictures else 0.0

    def _decoding_of(self, digest: str) -> Rate:
        return self._decoding.setdefault(digest, Rate(_GUESSED_DECODING))
