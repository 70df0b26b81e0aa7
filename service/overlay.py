"""What Petalpaw answers before BentoML's own application sees it.

BentoML would answer some addresses itself, before it asks what is mounted. Its router would also redirect `/classify/`
to wherever the header Host says, body and all; here that is no address. And the busiest address goes straight to its
function: two frameworks' routers and middlewares, none of which it needs, cost more than all the rest of its request.
"""

from collections.abc import Collection

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from inference.errors import PetalpawError
from service.problem import CLIENT_LEFT, refusal


class Overlay:
    """ASGI middleware: requests for `paths` go to `api`, those for `shortcut` there, all others pass."""

    def __init__(self, app: ASGIApp, api: ASGIApp, paths: Collection[str], shortcut: "Shortcut") -> None:
        self.app, self.api, self.paths, self.shortcut = app, api, frozenset(paths), shortcut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Choose who answers one request."""
        if "app" in scope:
            scope["app"].router.redirect_slashes = False
        await self._answerer(scope)(scope, receive, send)

    def _answerer(self, scope: Scope) -> ASGIApp:
        if scope["type"] != "http":
            return self.app
        if scope["path"] == self.shortcut.path and scope["method"] == "POST":
            return self.shortcut
        return self.api if scope["path"] in self.paths else self.app


class Shortcut:
    """ASGI application: POST to the only address of `router`, whose function needs nothing of what `api` adds."""

    def __init__(self, api: FastAPI, router: APIRouter) -> None:
        (self._route,) = (route for route in router.routes if isinstance(route, APIRoute))
        self._api, self.path = api, self._route.path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request as `api` would."""
        scope["app"], scope["route"] = self._api, self._route
        try:
            response: Response = await self._route.endpoint(Request(scope, receive))
        except PetalpawError as error:
            response = refusal(self.path, error)
        except ClientDisconnect:
            response = Response(status_code=CLIENT_LEFT)
        await response(scope, receive, send)
