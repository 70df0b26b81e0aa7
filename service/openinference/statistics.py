"""Triton's statistics extension: what each served version has done, through whichever address."""

from dataclasses import asdict

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from inference.repository import Artifact
from service.openinference.messages import BatchStatistics, ModelStatistics, StageStatistics, StatisticsResponse
from service.openinference.paths import of_model, refusals, used_model
from service.openinference.server import said
from service.statistics import Figures

router = APIRouter()


@router.get("/v2/models/stats", response_model=StatisticsResponse)
@of_model(router, "GET", "/stats", response_model=StatisticsResponse, responses=refusals(404))
async def statistics(request: Request) -> Response:
    """Sums since the service began: of one version, of all of a model, or of all."""
    state = request.app.state
    served = [classifier.artifact for classifier in state.catalog.served]
    wanted = request.path_params
    if wanted:
        with used_model(request):  # refuses what is not served
            served = [each for each in served if each.name == wanted["name"]]
            served = [each for each in served if each.version == wanted.get("version", each.version)]
    figures = [(artifact, state.metrics.statistics.of(f"{artifact.name}/{artifact.version}")) for artifact in served]
    return said(StatisticsResponse(model_stats=[_statistics(*each) for each in figures]))


def _statistics(artifact: Artifact, figures: Figures) -> ModelStatistics:
    return ModelStatistics(
        name=artifact.name,
        version=artifact.version,
        last_inference=figures.last_request_ms,
        inference_count=figures.answered,
        execution_count=sum(total.count for total in figures.runs.values()),
        inference_stats=StageStatistics(
            success=asdict(figures.succeeded),
            fail=asdict(figures.failed),
            queue=asdict(figures.waited),
            compute_input=asdict(figures.prepared),
            compute_infer=asdict(figures.inferred),
        ),
        batch_stats=[
            BatchStatistics(batch_size=size, compute_infer=asdict(total))
            for size, total in sorted(figures.runs.items())
        ],
    )
