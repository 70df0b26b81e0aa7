"""Catalogs of models that come and go."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from inference.budget import Budget
from service.catalog import Catalog
from service.settings import Settings

ENGLISH, GERMAN = ("red", "green", "blue"), ("rot", "gruen", "blau")
Labels = tuple[str, str, str]
Publish = Callable[..., str]


def opened(folder: Path, **settings: object) -> Catalog:
    return Catalog.open(Settings(models=folder / "models", device="cpu", **settings), Budget(cores=1))


def live(work: Callable[[Catalog], Awaitable[None]], catalog: Catalog) -> None:
    """Run what a request's coroutine would do, and close the catalog."""

    async def run() -> None:
        try:
            await asyncio.wait_for(work(catalog), 30)
        finally:
            catalog.close()

    asyncio.run(run())


def states(catalog: Catalog) -> list[str]:
    return [f"{one.name}/{one.version} {one.state}{' *' if one.default else ''}" for one in catalog.index()]


def damage(folder: Path, version: str) -> Path:
    """Turn the last bit of a published model around."""
    path = folder / "models" / "colours" / version / "model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return path
