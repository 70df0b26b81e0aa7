"""The addresses of the protocol, as one router."""

from fastapi import APIRouter

from service.openinference import infer, model, repository, server, statistics

router = APIRouter(tags=["Open Inference Protocol"])
# Statistics first: /v2/models/stats would otherwise be a model's name.
for part in (server, statistics, model, infer, repository):
    router.include_router(part.router)
