"""FastAPI with an upload parameter: a plain `def` endpoint, which FastAPI runs in its pool of threads.

fastapi.tiangolo.com/tutorial/request-files, /async (blocking work belongs into `def`), /deployment/server-workers
(uvicorn with a worker process per core).
"""

from typing import Annotated

from fastapi import FastAPI, File
from plain import classify, session

app = FastAPI()
model = session()


@app.post("/classify")
def classify_upload(image: Annotated[bytes, File()]) -> dict[str, object]:
    return classify(model, image)


@app.get("/ready")
def ready() -> dict[str, str]:
    return {}
