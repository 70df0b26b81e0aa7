"""The bodies of requests on their way in."""

import asyncio
import contextlib
from time import monotonic

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from inference.errors import Overloaded, UploadTooSlow

GRACE_S = 5.0
"""How long a body may take in any case."""

SMALL_BYTES = 65536
"""What has usually come with the head, or will at once."""

LINGER_S = 2.0
LINGER_BYTES = 16 * 1024 * 1024
"""How long, and how far, the rest of a refused upload is read and dropped, so that its sender sees the answer."""


class Uploads:
    """What all requests under way hold of their bodies, in bytes, and `limit`, the most that they may."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0

    def hold(self, count: int) -> None:
        """Raises Overloaded when that is too much; it counts until it is let go of all the same."""
        self._held += count
        if self._held > self._limit:
            raise Overloaded("the service holds as many bytes of request bodies as it may; try again shortly")

    def let_go(self, count: int) -> None:
        """So many bytes are not needed any longer."""
        self._held -= count


class Upload:
    """Hands a request's messages on; `over` once its body is, and at once for a request without one.

    `small` is a body that costs less to read than a new connection.
    A body that takes longer than `GRACE_S` must bring `min_rate` bytes per second on average.
    """

    def __init__(self, headers: Headers, receive: Receive, min_rate: int, uploads: Uploads) -> None:
        length = headers.get("content-length", "0") if "transfer-encoding" not in headers else ""
        self.over = length == "0"
        self.small = length.isdigit() and int(length) <= SMALL_BYTES
        self._receive, self._min_rate = receive, min_rate
        self._bytes, self._began = 0, monotonic()
        self._uploads, self._held = uploads, 0

    async def receive(self) -> Message:
        """The next message, whose bytes are kept until `release`. Raises UploadTooSlow or Overloaded."""
        if self.over:
            return await self._receive()
        message = await self._next()
        count = len(message.get("body", b""))
        self._held += count
        self._uploads.hold(count)
        return message

    def release(self) -> None:
        """The request is over, and nothing of its body is needed."""
        self._uploads.let_go(self._held)
        self._held = 0

    async def _next(self) -> Message:
        # Against the deadline of the request this only makes sure that a slow one holds its connection no longer.
        allowed = GRACE_S + self._bytes / self._min_rate if self._min_rate else None
        try:
            async with asyncio.timeout(allowed and self._began + allowed - monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise UploadTooSlow(
                f"{self._bytes:,} bytes of the body came in {allowed:.0f} s; send it faster, or a smaller one"
            ) from None
        self._bytes += len(message.get("body", b""))
        self.over = not message.get("more_body", False)
        return message

    async def drop(self) -> None:
        """Read on without keeping anything, for a while."""
        read = self._bytes
        with contextlib.suppress(TimeoutError, UploadTooSlow):
            async with asyncio.timeout(LINGER_S):
                while not self.over and self._bytes - read < LINGER_BYTES:
                    await self._next()
