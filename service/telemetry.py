"""What every request leaves behind: numbers, a log line, a trace, and the headers X-Request-Id and Server-Timing."""

from collections import defaultdict
from time import perf_counter
from typing import get_args

from starlette.datastructures import Headers, MutableHeaders, State
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.errors import PetalpawError
from service import logs
from service.call import REFUSED, REQUEST_ID, Call, Ended, Stage
from service.metrics import Metrics
from service.problem import CLIENT_LEFT
from service.tracing import Tracing

SERVER_TIMING = "Server-Timing"

_PROBES = frozenset({"/livez", "/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: counted, but neither logged nor traced."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER = "other"


class Telemetry:
    """ASGI middleware around the edge. `state` is the application's, filled before the first request."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request pass, and note how it ended."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = perf_counter()
        status = CLIENT_LEFT

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, Call.within(scope), start)
            await send(message)

        try:
            await self.app(scope, receive, seen)
        finally:
            self._note(scope, status, start)

    def _note(self, scope: Scope, status: int, start: float) -> None:
        call = Call.within(scope) or Call()
        refused: PetalpawError | None = scope.get(REFUSED)
        ended = Ended(
            call=call,
            method=scope["method"] if scope["method"] in _METHODS else _OTHER,
            route=getattr(scope.get("route"), "path_format", _OTHER),
            path=scope.get("raw_path", b"").decode("ascii", "replace"),
            status=refused.status if refused else status,
            code=refused.code if refused else call.problem or _code(status),
            start=start,
            seconds=perf_counter() - start,
        )
        metrics: Metrics = self._state.metrics
        metrics.request(ended)
        if ended.route not in _PROBES:
            tracing: Tracing | None = self._state.tracing
            logs.access(ended, tracing.record(ended, Headers(scope=scope)) if tracing else None)


def note_refused(state: State, error: PetalpawError) -> None:
    """Count and log, as a request, what was refused before it was one."""
    ended = Ended(Call(), _OTHER, _OTHER, "-", error.status, error.code, start=perf_counter(), seconds=0.0)
    state.metrics.request(ended)
    logs.access(ended, None)


def _code(status: int) -> str:
    """What stands for the code where no problem was sent."""
    if status == CLIENT_LEFT:
        return "client_left"
    return "ok" if status < 400 else _OTHER


def _add_headers(message: Message, call: Call | None, start: float) -> None:
    if call is None:
        return
    headers = MutableHeaders(scope=message)
    headers[REQUEST_ID] = call.id
    headers[SERVER_TIMING] = ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in _timing(call, start))


def _timing(call: Call, start: float) -> list[tuple[str, float]]:
    """Seconds by stage, summed over the request's pictures, and in total until now, which pictures share."""
    spent: defaultdict[Stage, float] = defaultdict(float)
    for each in list(call.spent):
        spent[each.stage] += each.seconds
    return [*((stage, spent[stage]) for stage in get_args(Stage) if stage in spent), ("total", perf_counter() - start)]
