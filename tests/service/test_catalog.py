"""Versions come and go while requests go on: the catalog itself, on real artifacts."""

import asyncio
import errno
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.classifier import Classifier
from inference.errors import (
    ModelUnknown,
)
from inference.runtimes.registry import CANDIDATES
from service.catalog import Catalog
from tests.conftest import GREEN
from tests.service.catalogs import ENGLISH, GERMAN, Publish, damage, live, opened, states
from tests.service.conftest import ROOT, environment


def test_a_new_version_takes_over_and_the_old_one_goes(tmp_path: Path, publish: Publish) -> None:
    publish()

    async def work(catalog: Catalog) -> None:
        publish(GERMAN)
        assert states(catalog) == ["colours/1 READY *", "colours/2 UNAVAILABLE"]
        await catalog.load("colours")
        assert states(catalog) == ["colours/1 UNAVAILABLE", "colours/2 READY *"]
        assert (catalog.index()[0].reason, catalog.index()[0].refused) == ("replaced by a newer version", False)
        with catalog.use("colours") as classifier:
            assert classifier.labels == GERMAN
        with (
            pytest.raises(ModelUnknown, match="version '1' of colours is not served; served: 2"),
            catalog.use("colours", "1"),
        ):
            pass

    live(work, opened(tmp_path))


def test_several_versions_answer_side_by_side(tmp_path: Path, publish: Publish) -> None:
    for labels in (ENGLISH, GERMAN, ENGLISH):
        publish(labels)

    async def work(catalog: Catalog) -> None:
        assert states(catalog) == ["colours/1 UNAVAILABLE", "colours/2 READY", "colours/3 READY *"]
        with catalog.use("colours", "2") as second, catalog.use(None) as newest:
            assert (second.labels, newest.labels) == (GERMAN, ENGLISH)
        await catalog.load("colours", "1")
        assert states(catalog) == ["colours/1 READY", "colours/2 READY", "colours/3 READY *"]
        await catalog.unload("colours", "3")
        assert states(catalog)[1:] == ["colours/2 READY *", "colours/3 UNAVAILABLE"]
        assert catalog.index()[2].reason == "unloaded on request"

    live(work, opened(tmp_path, versions=2))


def test_what_is_served_can_be_named(tmp_path: Path, publish: Publish) -> None:
    publish()
    publish()
    publish(name="tones")
    assert states(opened(tmp_path, serve="colours/1")) == [
        "colours/1 READY *",
        "colours/2 UNAVAILABLE",
        "tones/1 UNAVAILABLE",
    ]
    assert states(opened(tmp_path, serve="colours/1,colours/2"))[:2] == ["colours/1 READY", "colours/2 READY *"]
    assert states(opened(tmp_path, serve="tones,colours"))[1:] == ["colours/2 READY *", "tones/1 READY *"]
    with pytest.raises(ModelUnknown, match="there is no model 'colours/7'"):
        opened(tmp_path, serve="colours/7")
    with pytest.raises(ModelUnknown, match="there is no model 'roses'"):
        opened(tmp_path, serve="tones,roses")


def test_a_kept_default_stays_until_it_is_unloaded(tmp_path: Path, publish: Publish) -> None:
    publish()
    publish()

    async def work(catalog: Catalog) -> None:
        publish(GERMAN)
        await catalog.load("colours")
        assert states(catalog) == ["colours/1 UNAVAILABLE", "colours/2 READY *", "colours/3 READY"]
        await catalog.unload("colours", "2")
        assert states(catalog)[2] == "colours/3 READY *"

    live(work, opened(tmp_path, default_version="kept"))


def test_a_request_keeps_its_version_to_the_end(
    tmp_path: Path, publish: Publish, picture: Callable[..., bytes]
) -> None:
    publish()

    async def work(catalog: Catalog) -> None:
        with catalog.use("colours") as held:
            unloading = asyncio.create_task(catalog.unload("colours"))
            await asyncio.sleep(0.05)
            assert not unloading.done()
            assert states(catalog) == ["colours/1 UNAVAILABLE"]
            with pytest.raises(ModelUnknown, match="there is no model 'colours'; known: none"), catalog.use("colours"):
                pass
            (outcome,) = held.classify([picture(GREEN)])
            assert getattr(outcome, "label", outcome) == "green"
        await unloading
        await catalog.load("colours")
        assert states(catalog) == ["colours/1 READY *"]

    live(work, opened(tmp_path))


def test_watchers_hear_of_every_classifier(tmp_path: Path, publish: Publish) -> None:
    publish()
    heard: list[str] = []

    class Listener:
        def loaded(self, classifier: Classifier) -> None:
            heard.append(f"+{classifier.artifact.version}")

        def unloaded(self, classifier: Classifier) -> None:
            heard.append(f"-{classifier.artifact.version}")

    async def work(catalog: Catalog) -> None:
        catalog.watch(Listener())
        publish()
        await catalog.load("colours")
        await catalog.load("colours", "2")
        await catalog.unload("colours")
        assert heard == ["+1", "+2", "-1", "+2", "-2", "-2"]

    live(work, opened(tmp_path))


def test_a_client_that_leaves_does_not_leave_a_load_half_done(tmp_path: Path, publish: Publish) -> None:
    publish()

    async def work(catalog: Catalog) -> None:
        publish()
        leaving = asyncio.create_task(catalog.load("colours"))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        while states(catalog)[1] != "colours/2 READY *":
            await asyncio.sleep(0.01)

    live(work, opened(tmp_path))


def test_new_versions_are_found_and_what_was_unloaded_stays_so(tmp_path: Path, publish: Publish) -> None:
    publish()

    async def until(catalog: Catalog, expected: list[str]) -> None:
        async with asyncio.timeout(10):
            while states(catalog) != expected:
                await asyncio.sleep(0.02)

    async def work(catalog: Catalog) -> None:
        catalog.follow(0.05)
        publish()
        damaged = damage(tmp_path, "2")
        while "is not the file that was published" not in catalog.index()[1].reason:
            await asyncio.sleep(0.02)
        shutil.copyfile(tmp_path / "exported" / "model.onnx", damaged)
        await until(catalog, ["colours/1 UNAVAILABLE", "colours/2 READY *"])
        publish(name="tones")
        await until(catalog, ["colours/1 UNAVAILABLE", "colours/2 READY *", "tones/1 READY *"])
        await catalog.unload("tones")
        publish(name="tones")
        await catalog.load("colours", "1")
        await catalog.unload("colours", "2")
        await asyncio.sleep(0.3)
        assert states(catalog) == [
            "colours/1 READY *",
            "colours/2 UNAVAILABLE",
            "tones/1 UNAVAILABLE",
            "tones/2 UNAVAILABLE",
        ]

    live(work, opened(tmp_path))


def test_runtime_auto_is_chosen_for_new_versions_as_well(tmp_path: Path, publish: Publish) -> None:
    publish()

    async def work(catalog: Catalog) -> None:
        publish()
        await catalog.load("colours")
        assert {classifier.runtime.name for classifier in catalog.served} <= set(CANDIDATES)
        assert states(catalog)[1] == "colours/2 READY *"

    live(work, opened(tmp_path, runtime="auto"))


_CYCLES = """
import asyncio, json
from pathlib import Path

from inference.budget import Budget
from service.catalog import Catalog
from service.settings import Settings

async def cycles():
    catalog = Catalog.open(Settings(models=Path("models"), serve="catdog", device="cpu"), Budget(cores=1))
    for _ in range(8):
        loaded = allocated()
        await catalog.unload("catdog")
        yield loaded, allocated()
        await catalog.load("catdog")
    catalog.close()

# Pages of files come and go as the kernel likes, and what it has swapped out is still taken.
def allocated():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(status[field].split()[0]) * 1024 for field in ("RssAnon", "VmSwap"))

async def main():
    print(json.dumps([each async for each in cycles()]))

asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads allocated memory from /proc")
def test_memory_returns(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CYCLES], cwd=ROOT, env=environment(tmp_path), capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr.decode()
    sizes = json.loads(done.stdout)[1:]  # imports and pools come in the first round and stay
    for loaded, unloaded in sizes:
        assert loaded - unloaded > 30_000_000, sizes
    # Now and then the C library keeps a piece for a round: what stays must not add up.
    unloaded = [each for _, each in sizes]
    assert min(unloaded[-3:]) - min(unloaded[:3]) < 10_000_000, sizes


def test_a_version_that_left_the_repository_leaves_the_index(tmp_path: Path, publish: Publish) -> None:
    publish()

    async def work(catalog: Catalog) -> None:
        publish()
        await catalog.load("colours")
        assert states(catalog) == ["colours/1 UNAVAILABLE", "colours/2 READY *"]
        shutil.rmtree(tmp_path / "models" / "colours" / "1")
        assert states(catalog) == ["colours/2 READY *"]

    live(work, opened(tmp_path))


def test_looking_for_versions_goes_on_after_whatever_failed(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish()

    async def work(catalog: Catalog) -> None:
        followed, looks = catalog.loader.followed, itertools.count()

        def failing() -> list[str]:
            if not next(looks):
                raise OSError(errno.ESTALE, "Stale file handle")
            return followed()

        monkeypatch.setattr(catalog.loader, "followed", failing)
        publish()
        catalog.follow(0.05)
        async with asyncio.timeout(30):
            while states(catalog)[-1] != "colours/2 READY *":
                await asyncio.sleep(0.05)

    live(work, opened(tmp_path))
    assert "Stale file handle" in caplog.text
