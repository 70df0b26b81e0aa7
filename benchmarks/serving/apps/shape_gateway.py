"""A gateway process that reads and decodes, and a predictor process that infers, joined by bentoml.depends.

Without Petalpaw's admission, deadlines, metrics and logs, which would only slow it down.
"""

import os

import bentoml
import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from inference.classifier import Classifier
from inference.prediction import predictions
from inference.repository import Repository
from service.settings import read_settings

MODEL = "flowers"
CORES = len(os.sched_getaffinity(0))


@bentoml.service(name="predictor", workers=1, threads=CORES)
class Predictor:
    def __init__(self) -> None:
        self.classifier = Classifier.load(Repository(read_settings().models).open(MODEL), device="cpu")

    @bentoml.api
    def logits(self, crop: np.ndarray) -> np.ndarray:
        return self.classifier.logits(crop[None])


async def classify(request: Request) -> JSONResponse:
    gateway = bentoml.get_current_service()
    async with request.form() as form:
        data = await form["images"].read()
    manifest = gateway.artifact.manifest
    crop = await run_in_threadpool(manifest.preprocessing, data)
    logits = await gateway.predictor.to_async.logits(crop=crop)
    (prediction,) = predictions(logits, manifest.labels, manifest.calibration)
    return JSONResponse({"predictions": [{"label": prediction.label, "probability": prediction.probability}]})


@bentoml.service(name="gateway", workers=1)
@bentoml.asgi_app(Starlette(routes=[Route("/classify", classify, methods=["POST"])]))
class Gateway:
    predictor = bentoml.depends(Predictor)

    def __init__(self) -> None:
        self.artifact = Repository(read_settings().models).open(MODEL)
