"""One request on its way through the service: its id, its deadline, and what its time went into."""

import asyncio
import random
import string
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Literal, NamedTuple

from starlette.requests import HTTPConnection
from starlette.types import Scope

from inference.errors import DeadlineExceeded

Stage = Literal["read", "decode", "preprocess", "queue", "batch", "inference"]
"""A picture queues for a stream once; with adaptive batching its crop then waits for a batch."""

REQUEST_ID = "X-Request-Id"
TIMEOUT = "X-Request-Timeout-Ms"
TOO_LATE = "the time that this request had is over; allow more, or send fewer pictures at once"
REFUSED = "petalpaw.refused"
"""Where a scope holds the error with which the connection answered in the application's place."""

_KEY = "petalpaw.call"
_ID_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-_.:")
_ID_LENGTH = 128


class Spent(NamedTuple):
    """A stage that has ended; `start` is a reading of `time.perf_counter`."""

    stage: Stage
    start: float
    seconds: float


@dataclass(slots=True)
class Call:
    """`deadline` is a reading of `time.monotonic`, in seconds; nobody waits for the answer after it.

    `spent` holds stages as they end, from any thread; a stage stands there once per picture. `model` is the
    name/version that was used, `outcomes` counts its pictures by code, `problem` is the code of the problem that
    answers the request as a whole: what log, metrics and traces say of it.
    """

    id: str = field(default_factory=lambda: f"{random.getrandbits(64):016x}")
    deadline: float = float("inf")
    spent: list[Spent] = field(default_factory=list)
    model: str | None = None
    outcomes: Counter[str] = field(default_factory=Counter)
    problem: str | None = None

    @classmethod
    def begin(cls, scope: Scope, request_id: str | None) -> "Call":
        """The call of a request that has just arrived; a client's own id is kept if it is short and printable."""
        kept = request_id and len(request_id) <= _ID_LENGTH and _ID_CHARACTERS.issuperset(request_id)
        call = cls(request_id) if request_id and kept else cls()
        scope[_KEY] = call
        current.set(call)
        return call

    @classmethod
    def within(cls, scope: Scope) -> "Call | None":
        """The call that the edge began for this scope, if it did."""
        call = scope.get(_KEY)
        assert call is None or isinstance(call, cls)
        return call

    @classmethod
    def of(cls, request: HTTPConnection) -> "Call":
        """The call that the edge began for this request."""
        call = request.scope[_KEY]
        assert isinstance(call, Call)
        return call

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.deadline - monotonic()

    def check(self) -> None:
        """Go on only if somebody still waits. Raises DeadlineExceeded."""
        if self.remaining <= 0:
            raise DeadlineExceeded(TOO_LATE)

    @asynccontextmanager
    async def at_most(self, seconds: float | None) -> AsyncIterator[None]:
        """Bring the deadline forward to so many seconds from now; None leaves it. Raises DeadlineExceeded then."""
        if seconds is not None:
            self.deadline = min(self.deadline, monotonic() + seconds)
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise DeadlineExceeded(TOO_LATE) from None

    @property
    def abandoned(self) -> bool:
        """Whether the client left, or has its answer."""
        return self.deadline == float("-inf")

    def abandon(self) -> None:
        """Nobody waits any longer: what has not begun will not begin."""
        self.deadline = float("-inf")

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Time what happens inside; what fails counts too."""
        start = perf_counter()
        try:
            yield
        finally:
            self.spent.append(Spent(stage, start, perf_counter() - start))


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that is over, for log, metrics and traces.

    `route` is the template of its address or `other`, `path` what was asked for, without query and percent-encoded;
    `code` is `ok` or that of the problem; `start` is a reading of `time.perf_counter`.
    """

    call: Call
    method: str
    route: str
    path: str
    status: int
    code: str
    start: float
    seconds: float


current: ContextVar[Call | None] = ContextVar("call", default=None)
"""The call that this task works for, so that its log lines carry its id."""
