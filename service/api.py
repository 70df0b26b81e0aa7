"""The HTTP addresses of Petalpaw's own; BentoML adds /livez, /readyz, /metrics and a page to try them at /."""

import asyncio
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from inference.errors import DeadlineExceeded, ImagesFailed, ParameterInvalid, PetalpawError
from service.answer import Answer, ModelDetail, ModelList, Problem, answer, detail, summary
from service.body import read_order
from service.problem import MEDIA_TYPE, of_status, problem

_CLIENT_LEFT = 499
"""Nobody reads this; it is what stands in the log for a request whose client left before its end."""

_PARAMETERS = {
    "model": {"type": "string", "description": "needed where several models are served and none is the default"},
    "top_k": {"type": "integer", "minimum": 1, "description": "classes per answer"},
}
_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
                    **_PARAMETERS,
                },
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "byte"}},
                    **_PARAMETERS,
                },
            }
        },
        "image/*": _PICTURE,
        "application/octet-stream": _PICTURE,
    },
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that an address answers with, for the OpenAPI document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": "a problem; `code` says which", "content": content} for status in statuses}


api = FastAPI(
    title="Petalpaw",
    description="Image classification with an outcome for every picture.",
    version="1",
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
)


@api.post(
    "/classify",
    response_model=Answer,
    responses={
        **_problems(404, 413, 415, 422, 429, 504),
        500: {"model": Problem, "description": "a fault of the service"},
    },
    openapi_extra={
        "requestBody": _BODY,
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in _PARAMETERS.items()
        ],
    },
)
async def classify(request: Request) -> Response:
    """Classify one picture or several, each with an outcome of its own."""
    state = request.app.state
    try:
        async with asyncio.timeout(state.settings.request_timeout_s):
            return await _classify(request)
    except TimeoutError:
        raise DeadlineExceeded(
            f"no answer within {state.settings.request_timeout_s:g} s, upload included; send fewer pictures at once"
        ) from None
    except ClientDisconnect:
        return Response(status_code=_CLIENT_LEFT)


async def _classify(request: Request) -> Response:
    state = request.app.state
    order = await read_order(request, state.settings)
    classifier = state.catalog.choose(order.model)
    outcomes = await state.streams.outcomes(classifier, order.pictures, order.top_k or state.settings.top_k)
    if len(outcomes) == 1 and isinstance(outcomes[0], PetalpawError):
        raise outcomes[0]
    said = answer(classifier, order.pictures, outcomes)
    if all(isinstance(outcome, PetalpawError) for outcome in outcomes):
        failed = ImagesFailed(f"none of the {len(outcomes)} pictures could be classified; 'predictions' says why")
        return problem(failed, **said.model_dump())
    return Response(to_json(said), media_type="application/json")


@api.get("/models", response_model=ModelList)
async def models(request: Request) -> Response:
    """The models that are served."""
    catalog = request.app.state.catalog
    served = [summary(one, default=name == catalog.default) for name, one in catalog.classifiers.items()]
    return Response(to_json(ModelList(models=served)), media_type="application/json")


@api.get("/models/{name}", response_model=ModelDetail, responses=_problems(404))
async def model(request: Request, name: str) -> Response:
    """One model: labels, preprocessing, calibration, metrics, what runs it."""
    return Response(to_json(detail(request.app.state.catalog.choose(name))), media_type="application/json")


@api.get("/docs.json", include_in_schema=False)
async def document(request: Request) -> Response:
    """BentoML's OpenAPI document, corrected.

    It says 3.0, but what pydantic gives it, its own schemas included, is 3.1; and it introduces another project.
    """
    info = {"title": api.title, "description": api.description, "version": api.version}
    generated = {**request.app.state.service.openapi_spec.asdict(), "openapi": "3.1.0", "info": info}
    return Response(to_json(generated), media_type="application/json")


@api.exception_handler(PetalpawError)
async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, PetalpawError)
    return problem(error)


@api.exception_handler(HTTPException)
async def _unroutable(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = problem(of_status(error.status_code, request.url.path, request.method))
    response.headers.update(error.headers or {})
    return response


@api.exception_handler(RequestValidationError)
async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return problem(ParameterInvalid(wrong))
