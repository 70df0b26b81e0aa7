"""The HTTP addresses of Petalpaw's own; BentoML adds /livez and /schema.json.

Each part of the face is a router in a module of its own.
"""

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from inference.errors import ParameterInvalid, PetalpawError
from service import classify, listing, metrics, readiness, schema
from service.openinference import addresses
from service.page import routes
from service.problem import CLIENT_LEFT, of_status, refusal
from service.security import SECURITY, SECURITY_SCHEMES

api = FastAPI(
    title="Petalpaw",
    description="Image classification with an outcome for every picture.",
    version="1",
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
)
for part in (classify, listing, metrics, readiness, schema, addresses, routes):
    api.include_router(part.router)


@api.get("/docs.json", include_in_schema=False)
async def document(request: Request) -> Response:
    """BentoML's OpenAPI document, corrected.

    It says 3.0, but what pydantic gives it, its own schemas included, is 3.1; and it introduces another project.
    """
    info = {"title": api.title, "description": api.description, "version": api.version}
    generated = {**request.app.state.service.openapi_spec.asdict(), "openapi": "3.1.0", "info": info, **SECURITY}
    generated["components"] = {**generated["components"], "securitySchemes": SECURITY_SCHEMES}
    return Response(to_json(generated), media_type="application/json")


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
