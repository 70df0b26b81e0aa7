"""The HTTP addresses of Petalpaw's own; BentoML adds /livez and /schema.json.

Each part of the face is a router in a module of its own.
"""

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from inference.errors import ParameterInvalid, PetalpawError
from service import classify, listing, metrics, readiness, schema
from service.openinference import addresses
from service.page import routes
from service.problem import CLIENT_LEFT, of_status, refusal
from service.security import SECURITY, SECURITY_SCHEMES

if TYPE_CHECKING:
    import bentoml

api = FastAPI(
    title="Petalpaw",
    description="Image classification with an outcome for every picture.",
    version="1",
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
    redirect_slashes=False,
)
for part in (classify, listing, metrics, readiness, schema, addresses, routes):
    api.include_router(part.router)


@api.get("/docs.json", include_in_schema=False)
async def document(request: Request) -> Response:
    """The OpenAPI document. It takes tenths of a second to make: once, and off the event loop."""
    state = request.app.state
    if not hasattr(state, "document"):
        state.document = await run_in_threadpool(_document, state.service)
    return Response(state.document, media_type="application/json")


def _document(service: "bentoml.Service[Any]") -> bytes:
    """BentoML's document, corrected.

    It says 3.0, but what pydantic gives it, its own schemas included, is 3.1; and it introduces another project.
    """
    info = {"title": api.title, "description": api.description, "version": api.version}
    generated = {**service.openapi_spec.asdict(), "openapi": "3.1.0", "info": info, **SECURITY}
    generated["components"] = {**generated["components"], "securitySchemes": SECURITY_SCHEMES}
    return to_json(generated)


@api.exception_handler(PetalpawError)
async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, PetalpawError)
    return refusal(request.url.path, error)


@api.exception_handler(HTTPException)
async def _unroutable(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = refusal(request.url.path, of_status(error.status_code, request.url.path, request.method))
    response.headers.update(error.headers or {})
    return response


@api.exception_handler(ClientDisconnect)
async def _left(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)


@api.exception_handler(RequestValidationError)
async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return refusal(request.url.path, ParameterInvalid(wrong))
