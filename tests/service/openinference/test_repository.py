"""Triton's repository extension while models come and go: who may, and what stands in the index."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from inference.repository import Repository
from tests.conftest import GREEN, colour_artifact
from tests.service.conftest import ADMIN_KEY, PREDICT_KEY, Server, start

ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}
PREDICT = {"Authorization": f"Bearer {PREDICT_KEY}"}
GERMAN = ("rot", "gruen", "blau")


def publish(root: Path, name: str, labels: tuple[str, ...] = ("red", "green", "blue")) -> None:
    Repository(root).publish(colour_artifact(root / ".exported", name, labels))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the module's own with colours/1 and tones/1."""
    root = tmp_path_factory.mktemp("models")
    publish(root, "colours")
    publish(root, "tones")
    return root


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Server]:
    """A server that loads and unloads for holders of the admin key."""
    home = tmp_path_factory.mktemp("bentoml")
    running = Server(*start(home, models=models, device="cpu", versions=2, api_keys=f"admin:{ADMIN_KEY}"))
    running.wait()
    yield running
    running.stop()
    assert "Traceback" not in running.said(), running.said()


@pytest.fixture
def client(controlled: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{controlled.port}") as made:
        yield made


def index(client: triton.InferenceServerClient) -> dict[tuple[str, str], str]:
    return {(one["name"], one["version"]): one["state"] for one in client.get_model_repository_index()}


def best(client: triton.InferenceServerClient, picture: bytes, version: str = "") -> tuple[str, str]:
    """Version and label of an answer."""
    tensor = triton.InferInput("encoded", [1, 1], "BYTES").set_data_from_numpy(np.array([[picture]], object))
    outputs = [triton.InferRequestedOutput("logits", class_count=1)]
    result = client.infer("colours", [tensor], model_version=version, outputs=outputs)
    return result.get_response()["model_version"], result.as_numpy("logits")[0, 0].decode().split(":")[2]


def refused(call: Callable[..., object], status: str, code: str, *arguments: object, **options: object) -> None:
    with pytest.raises(InferenceServerException, match=code) as error:
        call(*arguments, **options)
    assert error.value.status() == status


def test_only_an_admin_loads_and_unloads(server: Server, guarded: Server, controlled: Server) -> None:
    for running, headers, status, code in [
        (server, None, "403", "forbidden"),
        (guarded, None, "401", "unauthorized"),
        (guarded, PREDICT, "403", "forbidden"),
        (controlled, None, "401", "unauthorized"),
    ]:
        with triton.InferenceServerClient(f"127.0.0.1:{running.port}") as client:
            refused(client.load_model, status, code, "colours", headers=headers)
            refused(client.unload_model, status, code, "colours", headers=headers)


def test_a_session_of_an_admin(
    client: triton.InferenceServerClient, models: Path, picture: Callable[..., bytes]
) -> None:
    green = picture(GREEN)
    assert index(client) == {("colours", "1"): "READY", ("tones", "1"): "READY"}
    client.unload_model("tones", headers=ADMIN)
    assert index(client) == {("colours", "1"): "READY", ("tones", "1"): "UNAVAILABLE"}
    assert not client.is_model_ready("tones")
    refused(client.unload_model, "404", "model_unknown", "tones", headers=ADMIN)
    client.load_model("tones", headers=ADMIN)
    assert client.is_model_ready("tones")

    assert best(client, green) == ("1", "green")
    publish(models, "colours", GERMAN)
    assert index(client)["colours", "2"] == "UNAVAILABLE"
    client.load_model("colours", headers=ADMIN)
    assert best(client, green) == ("2", "gruen")
    assert best(client, green, "1") == ("1", "green")
    assert client.get_model_metadata("colours")["versions"] == ["1", "2"]
    assert client.get_model_config("colours")["version_policy"] == {"specific": {"versions": [1, 2]}}
    stats = client.get_inference_statistics("colours")["model_stats"]
    assert [(one["version"], one["inference_count"]) for one in stats] == [("1", 2), ("2", 1)]


def test_a_version_is_named_by_a_parameter(controlled: Server, client: triton.InferenceServerClient) -> None:
    def control(what: str, version: object) -> int:
        url = f"/v2/repository/models/colours/{what}"
        return controlled.client.post(url, json={"parameters": {"version": version}}, headers=ADMIN).status_code

    assert control("unload", "1") == 200
    assert not client.is_model_ready("colours", "1")
    assert client.is_model_ready("colours")
    assert control("unload", "1") == 404
    assert control("load", "1") == 200
    assert client.is_model_ready("colours", "1")
    assert control("load", "9") == 404
    for wrong in ("../1", "", "01", "latest", 1):
        assert control("load", wrong) == 422
    assert controlled.client.get("/models").status_code == 200
    assert control("load", 1) == 422


def test_what_cannot_be_loaded(client: triton.InferenceServerClient, controlled: Server, models: Path) -> None:
    refused(client.load_model, "404", "model_unknown", "roses", headers=ADMIN)
    refused(client.load_model, "404", "model_unknown", "COLOURS", headers=ADMIN)
    own = "come from the repository alone"
    refused(client.load_model, "422", own, "colours", headers=ADMIN, config="{}")
    refused(client.load_model, "422", own, "colours", headers=ADMIN, config="{}", files={"file:1/a": b"x"})

    publish(models, "colours")
    (models / "colours" / "3" / "model.onnx").write_bytes(b"damaged")
    refused(client.load_model, "503", "digest_mismatch", "colours", headers=ADMIN)
    (damaged,) = [one for one in client.get_model_repository_index() if one["version"] == "3"]
    assert damaged["state"] == "UNAVAILABLE"
    assert "model.onnx" in damaged["reason"]
    assert client.is_model_ready("colours", "2")
    shutil.rmtree(models / "colours" / "3")


def test_the_index_of_what_is_ready(client: triton.InferenceServerClient, controlled: Server) -> None:
    client.unload_model("tones", headers=ADMIN)
    url = "/v2/repository/index"
    ready = controlled.client.post(url, json={"ready": True}).json()
    assert {one["name"] for one in ready} == {"colours"}
    assert {one["name"] for one in controlled.client.post(url).json()} == {"colours", "tones"}
    assert controlled.client.post(url, json={"ready": "yes"}).status_code == 422
    assert controlled.client.post(url, content=b"[" * 99_999).status_code == 422
    assert controlled.client.get(url).status_code == 405


def test_without_a_model_nothing_is_ready(client: triton.InferenceServerClient) -> None:
    client.unload_model("colours", headers=ADMIN)
    assert client.is_server_live()
    assert not client.is_server_ready()
    client.load_model("colours", headers=ADMIN)
    assert client.is_server_ready()
