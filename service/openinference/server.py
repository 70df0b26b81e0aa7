"""The server itself: metadata and health."""

from fastapi import APIRouter
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from service.openinference.messages import Live, Ready, ServerMetadata
from service.openinference.paths import refusals
from service.readiness import ready_catalog

NAME = "petalpaw"
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")

router = APIRouter()


def said(message: BaseModel) -> Response:
    """An answer in JSON."""
    return Response(to_json(message), media_type="application/json")


@router.get("/v2", response_model=ServerMetadata)
async def metadata(request: Request) -> Response:
    """The server's name and version, and the extensions of the protocol that it speaks."""
    return said(ServerMetadata(name=NAME, version=request.app.version, extensions=EXTENSIONS))


@router.get("/v2/health/live", response_model=Live)
async def live() -> Response:
    """Whether the server answers."""
    return said(Live(live=True))


@router.get("/v2/health/ready", response_model=Ready, responses=refusals(503))
async def ready(request: Request) -> Response:
    """Whether models can be used; the same as /readyz."""
    ready_catalog(request)
    return said(Ready(ready=True))
