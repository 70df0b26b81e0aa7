"""GET /readyz: whether requests are welcome, what is served, and where it runs."""

from fastapi import APIRouter, FastAPI
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from inference.errors import NotReady
from service.answer import Ready, ready
from service.catalog import Catalog
from service.problem import problems

PATH = "/readyz"

router = APIRouter()


class Readiness:
    """ASGI middleware that brings requests for /readyz here; BentoML's own answer has no detail."""

    def __init__(self, app: ASGIApp, api: FastAPI) -> None:
        self.app = app
        self.api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything else on."""
        own = scope["type"] == "http" and scope["path"] == PATH
        await (self.api if own else self.app)(scope, receive, send)


def ready_catalog(request: Request) -> Catalog:
    """The catalog, if it serves anything. Raises NotReady."""
    catalog: Catalog = request.app.state.catalog
    if not catalog.classifiers:
        raise NotReady("no model is loaded; load one, or start the service again")
    return catalog


@router.head(PATH, include_in_schema=False)
@router.get(PATH, response_model=Ready, responses=problems(503))
async def readyz(request: Request) -> Response:
    """Ready: at least one model is loaded, and has given PyTorch's answers on this machine."""
    catalog = ready_catalog(request)
    return Response(to_json(ready(catalog.device, catalog.served)), media_type="application/json")
