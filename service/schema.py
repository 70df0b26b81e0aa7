"""GET /schema.json: what BentoML's own clients must know to offer `classify` as a method."""

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

PATH = "/schema.json"

_CLASSIFY = {
    "name": "classify",
    "route": "/classify",
    "doc": "Classify one picture or several, each with an outcome of its own.",
    "input": {
        "type": "object",
        "properties": {
            "images": {"type": "array", "items": {"type": "file"}},
            "model": {"type": "string"},
            "version": {"type": "string"},
            "top_k": {"type": "integer"},
        },
        "required": ["images"],
    },
    "output": {"type": "object"},
}

router = APIRouter(include_in_schema=False)


@router.get(PATH)
async def schema(request: Request) -> Response:
    """BentoML's description of the service, whose routes it cannot know: they are mounted."""
    described = {**request.app.state.service.schema(), "routes": [_CLASSIFY]}
    return Response(to_json(described), media_type="application/json")
