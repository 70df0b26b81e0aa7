"""A repository on a volume that hangs."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from inference.errors import ManifestInvalid
from inference.repository import Repository
from service.loader import Key
from service.shelf import Shelf


def test_a_listing_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.shelf._PATIENCE_S", 0.1)
    go, looks = threading.Event(), []

    def contents() -> list[Key]:
        looks.append(1)
        if len(looks) > 1:
            go.wait(10)
        return [("colours", str(len(looks)))]

    async def clients() -> None:
        shelf = Shelf(contents)
        await shelf.look()
        assert shelf.contents() == [("colours", "1")]
        began = time.monotonic()
        beats = asyncio.create_task(asyncio.sleep(0.05))
        await asyncio.gather(*(shelf.look() for _ in range(50)))
        assert beats.done()
        assert time.monotonic() - began < 2
        assert (shelf.contents(), len(looks)) == ([("colours", "1")], 2)
        go.set()
        await shelf.look()
        assert shelf.contents() == [("colours", "2")]
        shelf.close()

    asyncio.run(clients())


def test_what_the_look_found_wrong_is_raised(tmp_path: Path) -> None:
    async def client() -> None:
        shelf = Shelf(Repository(tmp_path / "absent").contents)
        assert shelf.contents() == []
        await shelf.look()
        with pytest.raises(ManifestInvalid):
            shelf.contents()
        shelf.close()

    asyncio.run(client())
