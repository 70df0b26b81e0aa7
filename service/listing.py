"""GET /models: what is served, and what else there is."""

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from service import answer
from service.answer import ModelDetail, ModelList
from service.problem import problems

router = APIRouter()


@router.get("/models", response_model=ModelList)
async def models(request: Request) -> Response:
    """The models that are served, and the state of every version."""
    catalog = request.app.state.catalog
    served = [answer.summary(one, default=name == catalog.default) for name, one in catalog.classifiers.items()]
    said = ModelList(models=served, versions=[answer.version(entry) for entry in await catalog.listed()])
    return Response(to_json(said), media_type="application/json")


@router.get("/models/{name}", response_model=ModelDetail, responses=problems(404))
async def model(request: Request, name: str, version: str | None = None) -> Response:
    """One version of a model: labels, preprocessing, calibration, metrics, what runs it."""
    catalog = request.app.state.catalog
    with catalog.use(name, version) as classifier:
        return Response(to_json(answer.detail(classifier, await catalog.listed())), media_type="application/json")
