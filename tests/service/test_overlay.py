"""The busiest address, which goes past FastAPI, is answered as FastAPI would answer it."""

import asyncio

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from inference.errors import ImageTruncated, Overloaded
from service.api import api
from service.overlay import Shortcut

ENDS = {
    "well": None,
    "refused": ImageTruncated("half of it"),
    "overloaded": Overloaded("full", 7),
    "left": ClientDisconnect(),
    "teapot": HTTPException(418, headers={"X-Why": "tea"}),
}

router = APIRouter()


@router.post("/busy")
async def busy(request: Request) -> Response:
    """Ends as its query says."""
    if error := ENDS[request.query_params["end"]]:
        raise error
    return Response(await request.body(), headers={"X-Own": "1"})


@pytest.mark.parametrize("end", ENDS)
def test_the_shortcut_answers_as_the_application(end: str) -> None:
    application = FastAPI(exception_handlers=dict(api.exception_handlers))
    application.include_router(router)

    async def ask() -> list[tuple[int, dict[str, str], bytes]]:
        answers = []
        for way in (application, Shortcut(application, router)):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(way), base_url="http://x") as client:
                answer = await client.post("/busy", params={"end": end}, content=b"body")
                answers.append((answer.status_code, dict(answer.headers), answer.content))
        return answers

    usual, short = asyncio.run(ask())
    assert short == usual
    assert (end == "well") == (usual[0] == 200)


def test_what_nobody_foresaw_passes_through() -> None:
    """The edge answers it, for both."""

    async def ask() -> None:
        transport = httpx.ASGITransport(Shortcut(api, router))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            await client.post("/busy", params={"end": "unknown"})

    with pytest.raises(KeyError):
        asyncio.run(ask())
