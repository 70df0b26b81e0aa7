"""Addresses that BentoML would answer itself, before it asks what is mounted, brought to Petalpaw's own.

Its router would also redirect `/classify/` to wherever the header Host says, body and all; here that is no address.
"""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send


class Overlay:
    """ASGI middleware: requests for `paths` go to `api`, everything else passes."""

    def __init__(self, app: ASGIApp, api: ASGIApp, paths: Collection[str]) -> None:
        self.app, self.api, self.paths = app, api, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Choose who answers one request."""
        if "app" in scope:
            scope["app"].router.redirect_slashes = False
        own = scope["type"] == "http" and scope["path"] in self.paths
        await (self.api if own else self.app)(scope, receive, send)
