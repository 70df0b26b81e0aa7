"""POST /classify: pictures in, an outcome for each."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from inference.errors import ImagesFailed, PetalpawError
from service.answer import Answer, Problem, answer
from service.body import read_order
from service.call import TIMEOUT, Call
from service.problem import problem, problems

_PARAMETERS = {
    "model": {
        "type": "string",
        "description": "a name, or name/version; needed where several models are served and none is the default",
    },
    "version": {"type": "string", "description": "by default the model's default version"},
    "top_k": {"type": "integer", "minimum": 1, "description": "classes per answer"},
}
_TIMEOUT = {
    "type": "integer",
    "minimum": 1,
    "description": "milliseconds after which nobody waits for the answer; the service may allow less",
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


router = APIRouter()


@router.post(
    "/classify",
    response_model=Answer,
    responses={
        **problems(401, 404, 408, 413, 415, 422, 429, 504),
        500: {"model": Problem, "description": "a fault of the service"},
    },
    openapi_extra={
        "requestBody": _BODY,
        "parameters": [
            *({"name": name, "in": "query", "schema": schema} for name, schema in _PARAMETERS.items()),
            {"name": TIMEOUT, "in": "header", "schema": _TIMEOUT},
        ],
    },
)
async def classify(request: Request) -> Response:
    """Classify one picture or several, each with an outcome of its own."""
    state = request.app.state
    call = Call.of(request)
    # The queue may be full before the body is read, and its pictures known.
    state.streams.admission.admit(call)
    with call.stage("read"):
        order = await read_order(request, state.settings)
    with state.catalog.use(order.model, order.version) as classifier:
        outcomes = await state.streams.outcomes(call, classifier, order.pictures, order.top_k or state.settings.top_k)
    said = answer(classifier, order.pictures, outcomes)
    match [outcome for outcome in outcomes if isinstance(outcome, PetalpawError)]:
        case [only] if len(outcomes) == 1:
            return problem(only, **said.model_dump())
        case failed if len(failed) == len(outcomes):
            none = ImagesFailed(f"none of the {len(failed)} pictures could be classified; 'predictions' says why")
            return problem(none, **said.model_dump())
    return Response(said.model_dump_json(), media_type="application/json")
