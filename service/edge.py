"""The outermost layer of Petalpaw's own: every error that leaves is a problem, and refused uploads end politely.

Every request gets a `Call` with a deadline here. At the deadline, or as soon as its client leaves, whatever the
request is doing is cancelled, and what it has in the queue is never begun.
"""

import asyncio
import contextlib
import logging
from time import monotonic

from starlette.datastructures import Headers, MutableHeaders, State
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.errors import DeadlineExceeded, ParameterInvalid, PetalpawError
from service.call import REQUEST_ID, TIMEOUT, Call
from service.problem import CLIENT_LEFT, INTERNAL_DETAIL, of_status, refusal

LINGER_S = 2.0
LINGER_BYTES = 16 * 1024 * 1024
"""How long, and how far, the rest of a refused upload is read and dropped, so that its sender sees the answer."""

_TIMEOUT_DIGITS = 9

_log = logging.getLogger("bentoml.petalpaw")


class Edge:
    """ASGI middleware around the whole service, BentoML's own addresses included.

    `state` has the `settings`, at the latest when the first request comes.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app, self.state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what nobody foresaw is logged and answered with the code `internal`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        exchange = _Exchange(Call.begin(scope, headers.get(REQUEST_ID)), scope, receive, send)
        try:
            allowed = allowance_s(headers.getlist(TIMEOUT), self.state.settings.request_timeout_s)
            await exchange.answer(self.app, allowed)
        except PetalpawError as error:
            await exchange.refuse(error)
        except Exception:
            if exchange.started:
                raise
            _log.exception("unexpected failure of %s %s", scope["method"], scope["path"])
            await exchange.refuse(PetalpawError(INTERNAL_DETAIL))


def allowance_s(asked: list[str], most: float) -> float:
    """Seconds that a request may take: what its header asks for, and no more than the service allows.

    Raises ParameterInvalid.
    """
    if not asked:
        return most
    text = asked[0]
    if len(asked) > 1 or not (text.isascii() and text.isdigit() and len(text) <= _TIMEOUT_DIGITS and int(text) > 0):
        said = ", ".join(asked)
        raise ParameterInvalid(f"{TIMEOUT} must be a whole number of milliseconds, 1 or more, not {said[:64]!r}")
    return min(int(text) / 1000, most)


class _Exchange:
    """One request and its answer as they pass by."""

    def __init__(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        self.started = False
        self._call, self._scope, self._receive, self._send = call, scope, receive, send
        headers = Headers(scope=scope)
        self._upload_over = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"
        self._replaced = self._complete = False
        self._limit = asyncio.timeout(None)
        self._watch: asyncio.Task[None] | None = None

    async def answer(self, app: ASGIApp, allowed: float) -> None:
        """Let `app` answer within so many seconds. Raises DeadlineExceeded unless the answer has begun by then."""
        self._call.deadline = monotonic() + allowed
        self._limit = asyncio.timeout(allowed)
        try:
            async with self._limit:
                await app(self._scope, self.receive, self.send)
        except TimeoutError as error:
            if not self._limit.expired():
                raise
            if self.started:
                return  # its reader is too slow or gone; the server closes the connection
            if self._call.abandoned:
                await self.send_response(Response(status_code=CLIENT_LEFT))
                return
            raise DeadlineExceeded(
                f"no answer within {allowed:g} s, upload included; send fewer pictures at once, or allow more time"
            ) from error
        finally:
            self._call.abandon()
            if self._watch:
                self._watch.cancel()

    async def receive(self) -> Message:
        """Hand a message inwards, noting where the upload ends."""
        if self._watch:
            await asyncio.wait([self._watch])
            return {"type": "http.disconnect"}
        message = await self._receive()
        if not self._upload_over and message["type"] == "http.request" and not message.get("more_body", False):
            self._upload_over = True
            self._watch = asyncio.create_task(self._watch_client())
        return message

    async def _watch_client(self) -> None:
        """End the work as soon as its client leaves; after an upload that is the only message to come."""
        gone = (await self._receive())["type"] == "http.disconnect"
        if gone and not self._complete and not self._limit.expired():
            self._call.abandon()
            self._limit.reschedule(0)

    async def send(self, message: Message) -> None:
        """Hand a message outwards; an error in the framework's plain text becomes a problem."""
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if message["status"] >= 400 and headers.get("content-type", "").startswith("text/plain"):
                error = of_status(message["status"], self._scope["path"], self._scope["method"])
                await self.refuse(error, headers.get("allow"))
                self._replaced = True
                return
            self.started = True
            if not self._upload_over:
                headers["Connection"] = "close"
        elif not message.get("more_body", False):
            if not self._upload_over:
                # The answer is whole for its reader (Content-Length says so); closing now would reset the connection
                # under a sender that is still writing, and the answer would be lost.
                await self._send({**message, "more_body": True})
                await self._drain()
                message = {"type": "http.response.body", "body": b""}
            self._complete = True
        await self._send(message)

    async def refuse(self, error: PetalpawError, allow: str | None = None) -> None:
        """Answer with an error."""
        response = refusal(self._scope["path"], error)
        if allow:
            response.headers["Allow"] = allow
        await self.send_response(response)

    async def send_response(self, response: Response) -> None:
        """Answer with what needs no request to be read."""
        await response(self._scope, self.receive, self.send)

    async def _drain(self) -> None:
        dropped = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self._upload_over and dropped < LINGER_BYTES:
                    message = await self._receive()
                    dropped += len(message.get("body", b""))
                    self._upload_over = not message.get("more_body", False)
