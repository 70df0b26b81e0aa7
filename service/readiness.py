"""GET /readyz: whether requests are welcome, what is served, and where it runs."""

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from inference.errors import NotReady
from service.answer import Ready, ready
from service.catalog import Catalog
from service.problem import problems

PATH = "/readyz"

router = APIRouter()


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
