"""GET /ui and its files; / leads there."""

from functools import cache
from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

_FOLDER = Path(__file__).parent
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

File = Literal["page.css", "page.js", "icon.svg"]

router = APIRouter(include_in_schema=False)


@router.get("/")
async def front() -> Response:
    """Lead to the page. Relative, so that a proxy may serve this under a path of its own."""
    return RedirectResponse("ui")


@router.get("/ui")
async def page() -> Response:
    """The page."""
    return _served("page.html")


@router.get("/ui/")
async def lost() -> Response:
    """The page's files are relative to its address, so it has only one."""
    return RedirectResponse("../ui")


@router.get("/ui/{file}")
async def part(file: File) -> Response:
    """A file of the page; no other name reaches the file system."""
    return _served(file)


@cache
def _content(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


def _served(name: str) -> Response:
    # Small files: asked for again each time, a new version of the service never meets an old script.
    return Response(_content(name), headers={"Cache-Control": "no-cache"}, media_type=_TYPES[Path(name).suffix])
