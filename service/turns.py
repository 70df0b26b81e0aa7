"""How many pictures of one request queue for a stream at once: few, so that others do not wait behind all of it."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from service.admission import Admission
from service.call import Call


class Turns:
    """The turns of one request's pictures, at first `share` at once.

    They become more where waiting for the others before every turn would add up to more than the longest queue or the
    request's deadline: however many come later, who was let in is not much later than in a queue without turns.
    """

    def __init__(self, call: Call, admission: Admission, pictures: int, share: int) -> None:
        self._admission = admission
        self._allowed_s = min(admission.max_queue_s, call.remaining)
        self._until = monotonic() + self._allowed_s
        self._waiting, self.at_once = pictures, share
        self._own_s = 0.0
        self._free = asyncio.Semaphore(share)
        self._widen()

    @asynccontextmanager
    async def one(self, expected_s: float) -> AsyncIterator[None]:
        """A picture's turn, once it comes, until its end."""
        async with self._free:
            self._waiting -= 1
            self._own_s += expected_s
            yield
            self._widen()  # while it still stands in the queue, and therefore among its own
            self._own_s -= expected_s

    def _widen(self) -> None:
        # A request that takes long by itself stays narrow where few others are: hence the least time.
        left_s = max(self._until - monotonic(), self._allowed_s / 10)
        enough = math.ceil(self._waiting * (self._admission.turn_s - self._own_s) / left_s)
        while self.at_once < min(enough, self._waiting):
            self.at_once += 1
            self._free.release()
