"""What stands before BentoML's own application, which is left with its liveness.

BentoML's middlewares do nothing for the service that its own do not, and one of them leaves a timer of a minute behind
for every request. BentoML would also answer some addresses itself before it asks what is mounted, and redirect
`/classify/` to wherever the header Host says, body and all. The busiest address goes past FastAPI's own routers and
middlewares as well.
"""

from collections.abc import Awaitable, Callable
from typing import cast

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.edge import Edge
from service.telemetry import Telemetry

_Handler = Callable[[Request, Exception], Awaitable[Response]]

_BENTOMLS = ("/livez", "/healthz")


def stand_before(server: uvicorn.Server, api: FastAPI, busiest: APIRouter) -> None:
    """Let `server` answer by `api`, inside the edge and the telemetry; `busiest` has the busiest address."""
    overlay = Overlay(server.config.loaded_app, api, Shortcut(api, busiest))
    server.config.loaded_app = Telemetry(Edge(overlay, state=api.state), state=api.state)


class Overlay:
    """ASGI application: BentoML's addresses go to `bentoml`, that of `shortcut` there, all others to `api`."""

    def __init__(self, bentoml: ASGIApp, api: ASGIApp, shortcut: "Shortcut") -> None:
        self.bentoml, self.api, self.shortcut = bentoml, api, shortcut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Choose who answers one request."""
        await self._answerer(scope)(scope, receive, send)

    def _answerer(self, scope: Scope) -> ASGIApp:
        if scope["type"] != "http" or scope["path"] in _BENTOMLS:
            return self.bentoml
        if scope["path"] == self.shortcut.path and scope["method"] == "POST":
            return self.shortcut
        return self.api


class Shortcut:
    """ASGI application: POST to the only address of `router`, whose function needs nothing of what `api` adds."""

    def __init__(self, api: FastAPI, router: APIRouter) -> None:
        (self._route,) = (route for route in router.routes if isinstance(route, APIRoute))
        self._api, self.path = api, self._route.path
        self._handlers: dict[type[Exception], _Handler] = {
            each: cast("_Handler", handler)
            for each, handler in api.exception_handlers.items()
            if isinstance(each, type)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request as `api` would."""
        scope["app"], scope["route"] = self._api, self._route
        request = Request(scope, receive)
        try:
            response: Response = await self._route.endpoint(request)
        except tuple(self._handlers) as error:
            handler = next(self._handlers[each] for each in type(error).__mro__ if each in self._handlers)
            response = await handler(request, error)
        await response(scope, receive, send)
