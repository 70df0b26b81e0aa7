"""The outermost layer of Petalpaw's own: every error that leaves is a problem, and refused uploads end politely.

Every request gets a `Call` with a deadline here. At the deadline, or as soon as its client leaves, whatever the
request is doing is cancelled, and what it has in the queue is never begun.
"""

import asyncio
import logging
from time import monotonic

from starlette.datastructures import Headers, MutableHeaders, State
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.errors import DeadlineExceeded, ParameterInvalid, PetalpawError
from service.call import REQUEST_ID, TIMEOUT, Call
from service.problem import CLIENT_LEFT, INTERNAL_DETAIL, of_status, refusal
from service.security import API_KEY, harden
from service.settings import Settings
from service.upload import Upload, Uploads

_TIMEOUT_DIGITS = 9
_REPOSITORY = "/v2/repository/"

_log = logging.getLogger("bentoml.petalpaw")


class Edge:
    """ASGI middleware around the whole service, BentoML's own addresses included.

    `state` has `settings`, `gate` and `drain`, at the latest when the first request comes.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app, self.state = app, state
        self._outermost: ASGIApp | None = None
        self._uploads: Uploads | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what nobody foresaw is logged and answered with the code `internal`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self._outermost is None:
            self._outermost = _with_cors(self._answer, self.state.settings)
        await self._outermost(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, settings = Headers(scope=scope), self.state.settings
        call = Call.begin(scope, headers.get(REQUEST_ID))
        if self._uploads is None:
            self._uploads = Uploads(settings.max_uploads_bytes)
        upload = Upload(headers, receive, settings.min_upload_rate, self._uploads)
        exchange = _Exchange(call, scope, upload, send, closing=self.state.drain.begun)
        try:
            self.state.gate.admit(scope["path"], headers)
            self.state.drain.admit(scope["path"])
            await exchange.answer(self.app, allowance_s(headers.getlist(TIMEOUT), settings.request_timeout_s))
        except PetalpawError as error:
            if not exchange.started:
                await exchange.refuse(error)
        except Exception:
            if exchange.started:
                raise
            # As it came: decoded, it could have ends of lines.
            path = scope.get("raw_path", b"").decode("ascii", "replace")
            _log.exception("unexpected failure of %s %s", scope["method"], path)
            await exchange.refuse(PetalpawError(INTERNAL_DETAIL))
        finally:
            upload.release()


def _with_cors(app: ASGIApp, settings: Settings) -> ASGIApp:
    """`app` for browsers on pages of other origins too, if the settings name any."""
    if not settings.cors_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.cors_origins.split(),
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", API_KEY, REQUEST_ID, TIMEOUT],
        expose_headers=["Retry-After", "Server-Timing", REQUEST_ID],
    )


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


def _advice(path: str) -> str:
    if path.startswith(_REPOSITORY):
        return "a load or unload that has begun goes on, and the index has its outcome"
    return "send fewer pictures at once, or allow more time"


class _Exchange:
    """One request and its answer as they pass by; `closing` makes the answer the connection's last."""

    def __init__(self, call: Call, scope: Scope, upload: Upload, send: Send, *, closing: bool) -> None:
        self.started = False
        self._call, self._scope, self._upload, self._send, self._closing = call, scope, upload, send, closing
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
                await self._respond(Response(status_code=CLIENT_LEFT))
                return
            raise DeadlineExceeded(
                f"no answer within {allowed:g} s, upload included; {_advice(self._scope['path'])}"
            ) from error
        finally:
            self._call.abandon()
            if self._watch:
                self._watch.cancel()
                self._watch = None  # it would remember where it was cancelled: here, and keep the request alive

    async def receive(self) -> Message:
        """Hand a message inwards; once the upload is over, watch for the client's leaving."""
        if self._watch:
            await asyncio.wait([self._watch])
            return {"type": "http.disconnect"}
        was_over = self._upload.over
        message = await self._upload.receive()
        if self._upload.over and not was_over:
            self._watch = asyncio.create_task(self._watch_client())
        return message

    async def _watch_client(self) -> None:
        """End the work as soon as its client leaves; after an upload that is the only message to come."""
        gone = (await self._upload.receive())["type"] == "http.disconnect"
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
            if self._upload.small and not self._upload.over:
                await self._upload.drop()  # and the connection can be kept
            self.started = True
            harden(headers)
            if self._closing or not self._upload.over:
                headers["Connection"] = "close"
        elif not message.get("more_body", False):
            if not self._upload.over:
                # The answer is whole for its reader (Content-Length says so); closing now would reset the connection
                # under a sender that is still writing, and the answer would be lost.
                await self._send({**message, "more_body": True})
                await self._upload.drop()
                message = {"type": "http.response.body", "body": b""}
            self._complete = True
        await self._send(message)

    async def refuse(self, error: PetalpawError, allow: str | None = None) -> None:
        """Answer with an error."""
        response = refusal(self._scope["path"], error)
        if allow:
            response.headers["Allow"] = allow
        await self._respond(response)

    async def _respond(self, response: Response) -> None:
        await response(self._scope, self.receive, self.send)
