"""One request on its way through the service: its id, its deadline, and what its time went into."""

import secrets
import string
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Literal

from starlette.requests import HTTPConnection
from starlette.types import Scope

from inference.errors import DeadlineExceeded

Stage = Literal["read", "decode", "preprocess", "queue", "inference"]

REQUEST_ID = "X-Request-Id"
TIMEOUT = "X-Request-Timeout-Ms"
TOO_LATE = "the time that this request had is over; allow more, or send fewer pictures at once"
_KEY = "petalpaw.call"
_ID_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-_.:")
_ID_LENGTH = 128


@dataclass(slots=True)
class Call:
    """`deadline` is a reading of `time.monotonic`, in seconds; nobody waits for the answer after it.

    `spent` holds stages and their seconds as they end, from any thread; a stage stands there once per picture.
    """

    id: str = field(default_factory=lambda: secrets.token_hex(8))
    deadline: float = float("inf")
    spent: list[tuple[Stage, float]] = field(default_factory=list)

    @classmethod
    def begin(cls, scope: Scope, request_id: str | None) -> "Call":
        """The call of a request that has just arrived; a client's own id is kept if it is short and printable."""
        kept = request_id and len(request_id) <= _ID_LENGTH and _ID_CHARACTERS.issuperset(request_id)
        call = cls(request_id) if request_id and kept else cls()
        scope[_KEY] = call
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
            self.spent.append((stage, perf_counter() - start))
