"""The addresses of the protocol, as one router."""

from fastapi import APIRouter

from service.openinference import infer, model, server

router = APIRouter(tags=["Open Inference Protocol"])
for part in (server, model, infer):
    router.include_router(part.router)
