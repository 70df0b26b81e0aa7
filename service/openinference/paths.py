"""What a model has stands at two addresses: with its version, and without, which means the version that is served."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from inference.classifier import Classifier
from service.openinference.messages import Refusal

Endpoint = Callable[[Request], Awaitable[Response]]

_OF_MODEL = {"/v2/models/{name}": ("name",), "/v2/models/{name}/versions/{version}": ("name", "version")}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of an address, for the OpenAPI document."""
    return {status: {"model": Refusal, "description": "refused; `error` says why"} for status in statuses}


def of_model(
    router: APIRouter, method: str, tail: str = "", openapi_extra: dict[str, Any] | None = None, **said: Any
) -> Callable[[Endpoint], Endpoint]:
    """Register an endpoint at `tail` behind both addresses of a model; `said` goes to FastAPI's `add_api_route`."""

    def register(endpoint: Endpoint) -> Endpoint:
        for path, names in _OF_MODEL.items():
            parameters = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ]
            extra = {**(openapi_extra or {}), "parameters": parameters}
            router.add_api_route(path + tail, endpoint, methods=[method], openapi_extra=extra, **said)
        return endpoint

    return register


def used_model(request: Request) -> AbstractContextManager[Classifier]:
    """The classifier that the address names, for as long as it is needed. Raises ModelUnknown."""
    used: AbstractContextManager[Classifier] = request.app.state.catalog.use(**request.path_params)
    return used
