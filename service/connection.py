"""One TCP connection, before there is a request: limits that a client meets although it never sends a whole head.

uvicorn's own connection waits for ever for a head, of any length, and keeps idle connections until they fill the table
of open files. This one gives a head so many seconds and bytes, and when there are too many connections it lets the
one go that has been idle for the longest.
"""

import asyncio
import logging
import resource
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, cast

import uvicorn
from starlette.responses import Response
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from inference.errors import HeadersTooLarge, Overloaded, PetalpawError, RequestMalformed, UploadTooSlow
from service.call import REFUSED
from service.problem import problem
from service.settings import Settings

# Its warnings say neither who nor why; `Connection` has a line of its own for each.
_errors = logging.getLogger("uvicorn.error.connection")
_errors.setLevel(logging.ERROR)

_MAX_HEADERS = 128
_OTHER_FILES = 64
_LINGER_S = 1.0
_LINGER_BYTES = 1024 * 1024
"""How long, and how far, a refused connection is read on, so that its sender sees the answer before the end."""

_LAST_REQUEST_S = 0.5
"""How long a connection without a request is kept when the server stops: one may be on its way."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`connections` at the same time; `head_bytes` and `head_s` for the request line and the headers of a request.

    `idle_s` is how long a connection is kept for its next request.
    """

    connections: int
    head_bytes: int
    head_s: float
    idle_s: int

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """Those of the settings, and no more connections than there are files to open beside the models'."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        connections = min(settings.max_connections, max(1, files - _OTHER_FILES))
        return cls(connections, settings.max_header_bytes, settings.header_timeout_s, settings.keep_alive_s)


class Connection(HttpToolsProtocol):
    """uvicorn's connection within `limits`; `refused` hears of every request that reaches no application."""

    def __init__(
        self, *arguments: Any, limits: Limits, refused: Callable[[PetalpawError], None], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.logger = _errors
        self._limits, self._note = limits, refused
        self.timeout_keep_alive = limits.idle_s
        self._refused = self._begun = False
        self._in_head = True
        self._head_bytes = 0
        self._idle_since = monotonic()
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make room if need be, or refuse."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._await_head()
        if len(self.connections) > self._limits.connections and not self._make_room():
            self._refuse(Overloaded("the service has no connection left; try again shortly"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._cancel_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came. A head that goes on and on is refused before all of it is there."""
        if self._refused:
            self._head_bytes += len(data)
            if self._head_bytes > _LINGER_BYTES:
                self.transport.close()
            return
        began_in_head = self._in_head
        super().data_received(data)
        if self._idle and not self.transport.is_closing():
            self._await_head()  # a blank line ends the wait for the next request, and begins none
        if self._in_head and began_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._begun = True
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers behind a chunked body are dropped, since nobody has checked them."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole; only now is there a request."""
        self._in_head = self._begun = False
        self._head_bytes = 0
        self._cancel_timer()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._limits.head_bytes or len(self.headers) > _MAX_HEADERS:
            self._refuse(self._too_large())
        elif not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body; of a refused request it is dropped."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request."""
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The end of an answer."""
        self._idle_since = monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed is refused as everything else is."""
        self._refuse(RequestMalformed(f"{msg} The bytes are no HTTP/1.1 request; check what sends them."))

    def shutdown(self) -> None:
        """The server stops. A request that is on its way already is still answered."""
        if self._idle:
            self.loop.call_later(_LAST_REQUEST_S, super().shutdown)
        else:
            super().shutdown()

    def _should_upgrade_to_ws(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        pass  # any client could fill the log with it

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> bool:
        """Close the connection that has been idle for the longest. False where every one has a request."""
        idle = [one for one in self.connections if isinstance(one, Connection) and one is not self and one._idle]
        if not idle:
            return False
        oldest = min(idle, key=lambda one: one._idle_since)
        self.connections.discard(oldest)
        oldest.transport.close()
        return True

    def _await_head(self) -> None:
        self._in_head = True
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limits.head_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._idle:
            self._await_head()  # a pipelined request; the one before it is not answered yet
        elif self._begun:
            self._refuse(UploadTooSlow(f"a request's head took more than {self._limits.head_s:g} s; send it in one go"))
        else:
            self.transport.close()

    def _cancel_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"the head of the request has more than {self._limits.head_bytes:,} bytes or {_MAX_HEADERS} headers"
        )

    def _refuse(self, error: PetalpawError) -> None:
        """Answer without an application, and end the connection once its sender had time to read that."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._cancel_timer()
        if self._idle or not self.cycle.more_body:
            self._note(error)
        if self._idle or self._dropped(error):
            self.transport.write(_bytes_of(problem(error)))
            if self.transport.can_write_eof():
                self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)

    def _dropped(self, error: PetalpawError) -> bool:
        """Take its request from the application where the body cannot go on and no answer has begun."""
        if self.pipeline or not self.cycle.more_body or self.cycle.response_started:
            return False
        cast("Scope", self.cycle.scope)[REFUSED] = error
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return True


def _bytes_of(response: Response) -> bytes:
    """A whole HTTP/1.1 response that ends its connection."""
    headers = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
    return STATUS_LINE[response.status_code] + headers + b"connection: close\r\n\r\n" + bytes(response.body)


def limit_connections(server: uvicorn.Server, limits: Limits, refused: Callable[[PetalpawError], None]) -> None:
    """Let every connection that `server` accepts from now on be a `Connection`."""
    made = partial(Connection, limits=limits, refused=refused)
    server.config.http_protocol_class = cast("type[asyncio.Protocol]", made)
