"""The outermost layer of Petalpaw's own: every error that leaves is a problem, and refused uploads end politely."""

import asyncio
import contextlib
import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.errors import PetalpawError
from service.call import REQUEST_ID, Call
from service.problem import INTERNAL_DETAIL, of_status, refusal

LINGER_S = 2.0
LINGER_BYTES = 16 * 1024 * 1024
"""How long, and how far, the rest of a refused upload is read and dropped, so that its sender sees the answer."""

_log = logging.getLogger("bentoml.petalpaw")


class Edge:
    """ASGI middleware around the whole service, BentoML's own addresses included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what nobody foresaw is logged and answered with the code `internal`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        Call.begin(scope, Headers(scope=scope).get(REQUEST_ID))
        exchange = _Exchange(scope, receive, send)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except Exception:
            if exchange.started:
                raise
            _log.exception("unexpected failure of %s %s", scope["method"], scope["path"])
            await exchange.refuse(PetalpawError(INTERNAL_DETAIL))


class _Exchange:
    """One request and its answer as they pass by."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started = False
        self._scope, self._receive, self._send = scope, receive, send
        headers = Headers(scope=scope)
        self._upload_over = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"
        self._replaced = False

    async def receive(self) -> Message:
        """Hand a message inwards, noting where the upload ends."""
        message = await self._receive()
        self._upload_over = self._upload_over or not message.get("more_body", False)
        return message

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
        elif not message.get("more_body", False) and not self._upload_over:
            # The answer is whole for its reader (Content-Length says so); closing now would reset the connection
            # under a sender that is still writing, and the answer would be lost.
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def refuse(self, error: PetalpawError, allow: str | None = None) -> None:
        """Answer with an error."""
        response = refusal(self._scope["path"], error)
        if allow:
            response.headers["Allow"] = allow
        await response(self._scope, self.receive, self.send)

    async def _drain(self) -> None:
        dropped = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self._upload_over and dropped < LINGER_BYTES:
                    dropped += len((await self.receive()).get("body", b""))
