"""Addresses that BentoML would answer itself, before it asks what is mounted, brought to Petalpaw's own."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send


class Overlay:
    """ASGI middleware: requests for `paths` go to `api`, everything else passes."""

    def __init__(self, app: ASGIApp, api: ASGIApp, paths: Collection[str]) -> None:
        self.app, self.api, self.paths = app, api, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Choose who answers one request."""
        own = scope["type"] == "http" and scope["path"] in self.paths
        await (self.api if own else self.app)(scope, receive, send)
