"""The real server while its models change under requests."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from inference.repository import Repository
from tests.conftest import GREEN, colour_artifact
from tests.service.conftest import ADMIN_KEY, Server, is_problem, start

GERMAN = ("rot", "gruen", "blau")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the module's own with colours/1 and colours/2, which speak different languages."""
    root = tmp_path_factory.mktemp("models")
    publish(root)
    publish(root, GERMAN)
    return root


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Server]:
    """Serves the two newest versions and looks for newer ones every second."""
    running = Server(
        *start(
            tmp_path_factory.mktemp("bentoml"),
            models=models,
            device="cpu",
            versions=2,
            poll_s=1,
            api_keys=f"admin:{ADMIN_KEY}",
        )
    )
    running.wait()
    yield running
    running.stop()
    assert "Traceback" not in running.said(), running.said()


def publish(root: Path, labels: tuple[str, ...] = ("red", "green", "blue")) -> None:
    Repository(root).publish(colour_artifact(root / ".exported", labels=labels))


def answered(client: httpx.Client, picture: bytes, query: str) -> tuple[str, str]:
    """Version and label of an answer."""
    response = client.post(f"/classify{query}", content=picture, headers={"content-type": "image/jpeg"})
    assert response.status_code == 200, response.text
    body = response.json()
    return body["model"]["version"], body["predictions"][0]["label"]


def test_a_version_is_chosen_by_query_field_or_name(live: Server, picture: Callable[..., bytes]) -> None:
    green = picture(GREEN)
    assert answered(live.client, green, "") == ("2", "gruen")
    for query in ("?version=1", "?model=colours/1", "?model=colours&version=1", "?model=colours/1&version=1"):
        assert answered(live.client, green, query) == ("1", "green")
    form = live.client.post("/classify", files={"images": green}, data={"model": "colours", "version": "1"})
    assert form.json()["model"]["version"] == "1"
    raw = {"content": green, "headers": {"content-type": "image/jpeg"}}
    is_problem(live.client.post("/classify?version=9", **raw), 404, "model_unknown")
    is_problem(live.client.post("/classify?model=colours/1&version=2", **raw), 422, "parameter_invalid")


def test_readyz_says_what_runs_where(live: Server) -> None:
    body = live.client.get("/readyz").json()
    assert body["device"] == "cpu"
    runtime = {"name": "onnx", "device": "cpu", "execution_provider": "CPUExecutionProvider"}
    assert [(one["model"]["version"], one["runtime"]) for one in body["models"]] == [("1", runtime), ("2", runtime)]
    assert live.client.head("/readyz").status_code == 200


def test_a_new_version_takes_over_without_a_lost_request(
    live: Server, models: Path, picture: Callable[..., bytes]
) -> None:
    green, done, seen = picture(GREEN), threading.Event(), []

    def ask() -> None:
        with httpx.Client(base_url=live.client.base_url, timeout=30, trust_env=False) as client:
            while not done.is_set():
                seen.append(answered(client, green, "?model=colours"))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        publish(models, ("roja", "verde", "azul"))
        wait_for(live, lambda entries: entries["3"]["default"])
        shutil.rmtree(models / "colours" / "3")
        before = len(seen)
        while len(seen) < before + 40:
            done.wait(0.01)
    finally:
        done.set()
        for asker in askers:
            asker.join()
    assert set(seen) == {("2", "gruen"), ("3", "verde")}
    entries = wait_for(live, lambda entries: entries["1"]["state"] == "UNAVAILABLE")
    assert entries["1"]["reason"] == "replaced by a newer version"
    detail = live.client.get("/models/colours?version=2").json()
    assert (detail["labels"], [one["version"] for one in detail["versions"]]) == ([*GERMAN], ["1", "2", "3"])
    found = live.client.get("/metrics").text
    for version, state in (("1", "UNAVAILABLE"), ("3", "READY")):
        assert f'petalpaw_model_state{{model="colours",state="{state}",version="{version}"}} 1.0' in found


def test_loading_and_unloading_harm_no_request(live: Server, picture: Callable[..., bytes]) -> None:
    """A version that stays always answers; one that comes and goes answers, or is said to be unknown."""
    green, done, said = picture(GREEN), threading.Event(), []

    def ask(version: str) -> None:
        with httpx.Client(base_url=live.client.base_url, timeout=30, trust_env=False) as client:
            while not done.is_set():
                raw = {"content": green, "headers": {"content-type": "image/jpeg"}}
                body = client.post(f"/classify?model=colours/{version}", **raw).json()
                said.append((version, body["predictions"][0]["label"] if "predictions" in body else body["code"]))

    askers = [threading.Thread(target=ask, args=(version,)) for version in ("1", "1", "2", "2")]
    for asker in askers:
        asker.start()
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    try:
        for _ in range(5):
            for what, version in (("load", "1"), ("load", "2"), ("unload", "1")):
                before, url = len(said), f"/v2/repository/models/colours/{what}"
                done_so_far = live.client.post(url, json={"parameters": {"version": version}}, headers=headers)
                assert done_so_far.status_code == 200, done_so_far.text
                while len(said) < before + 8:
                    done.wait(0.01)
    finally:
        done.set()
        for asker in askers:
            asker.join()
    assert set(said) == {("1", "green"), ("1", "model_unknown"), ("2", "gruen")}


def wait_for(live: Server, condition: Callable[[dict[str, dict[str, object]]], object]) -> dict[str, dict[str, object]]:
    """The versions of /models once they are as expected."""
    for _ in range(200):
        entries = {one["version"]: one for one in live.client.get("/models").json()["versions"]}
        try:
            if condition(entries):
                return entries
        except KeyError:
            pass
        threading.Event().wait(0.05)
    raise AssertionError(live.client.get("/models").text)
