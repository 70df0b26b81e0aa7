"""GET /models: what is served."""

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from service.answer import ModelDetail, ModelList, detail, summary
from service.problem import problems

router = APIRouter()


@router.get("/models", response_model=ModelList)
async def models(request: Request) -> Response:
    """The models that are served."""
    catalog = request.app.state.catalog
    served = [summary(one, default=name == catalog.default) for name, one in catalog.classifiers.items()]
    return Response(to_json(ModelList(models=served)), media_type="application/json")


@router.get("/models/{name}", response_model=ModelDetail, responses=problems(404))
async def model(request: Request, name: str) -> Response:
    """One model: labels, preprocessing, calibration, metrics, what runs it."""
    with request.app.state.catalog.use(name) as classifier:
        return Response(to_json(detail(classifier)), media_type="application/json")
