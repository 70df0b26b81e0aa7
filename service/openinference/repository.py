"""The model repository: its index, and loading and unloading, which the edge lets nobody do without an admin key."""

from typing import Any

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from service.body import read_body
from service.openinference.messages import VERSION, ControlRequest, IndexRequest, ModelState
from service.openinference.paths import refusals
from service.openinference.wire import read_json

router = APIRouter(prefix="/v2/repository")


def _body(properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties}
    return {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}


_VERSION = {"version": {"type": ["string", "null"], "pattern": VERSION}}
_CONTROL = _body({"parameters": {"type": ["object", "null"], "properties": _VERSION}})


@router.post(
    "/index",
    response_model=list[ModelState],
    responses=refusals(413, 422),
    openapi_extra=_body({"ready": {"type": ["boolean", "null"]}}),
)
async def index(request: Request) -> Response:
    """Every version that is served or lies in the repository."""
    asked = read_json(await _whole(request), IndexRequest)
    states = [
        ModelState(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        for entry in await request.app.state.catalog.listed()
        if entry.state == "READY" or not asked.ready
    ]
    return Response(to_json(states), media_type="application/json")


@router.post(
    "/models/{name}/load",
    response_class=Response,
    responses=refusals(403, 404, 409, 413, 422, 503),
    openapi_extra=_CONTROL,
)
async def load(request: Request, name: str) -> Response:
    """Load the newest version of a model, or the one that the parameter `version` names, in place of what is served."""
    await request.app.state.catalog.load(name, await _version(request))
    return Response()


@router.post(
    "/models/{name}/unload", response_class=Response, responses=refusals(403, 404, 413, 422), openapi_extra=_CONTROL
)
async def unload(request: Request, name: str) -> Response:
    """Let go of a model, or of one version of it, once its requests are answered."""
    await request.app.state.catalog.unload(name, await _version(request))
    return Response()


async def _version(request: Request) -> str | None:
    """The version that a request names. Raises ParameterInvalid or RequestTooLarge."""
    return read_json(await _whole(request), ControlRequest).parameters.version


async def _whole(request: Request) -> bytearray:
    """The body; an empty one asks for nothing in particular."""
    return await read_body(request, request.app.state.settings.max_body_bytes) or bytearray(b"{}")
