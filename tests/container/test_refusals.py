"""Starts that cannot go well end at once, with status 3 and words that say what to do."""

import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.repository import Repository
from tests.container.conftest import GUARDED, running

pytestmark = pytest.mark.container

Refused = Callable[..., str]


@pytest.fixture
def models(tmp_path: Path, repository: Repository) -> Path:
    """A copy of the tests' model repository that every user may read, to be broken and mounted."""
    models = Path(shutil.copytree(repository.root, tmp_path / "models"))
    for path in (models, *models.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return models


def mounted(models: Path) -> tuple[str, str]:
    return "--volume", f"{models}:/models:ro"


def test_an_empty_repository(refused: Refused, tmp_path: Path, models: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "/models holds no model; publish one" in refused(*mounted(empty))


def test_a_repository_of_another_user(refused: Refused, models: Path) -> None:
    models.chmod(0o700)
    said = refused(*mounted(models))
    assert "/models cannot be listed (Permission denied); name a folder of models that this user may read" in said


def test_a_model_of_another_user(refused: Refused, models: Path) -> None:
    (models / "colours" / "1" / "manifest.json").chmod(0o600)
    said = refused(*mounted(models))
    assert "/models/colours/1/manifest.json" in said
    assert "Permission denied" in said


def test_a_file_of_a_model_of_another_user(refused: Refused, models: Path) -> None:
    (models / "colours" / "1" / "model.onnx").chmod(0o600)
    said = refused(*mounted(models))
    assert "/models/colours/1/model.onnx" in said
    assert "Permission denied" in said


def test_a_half_copied_model(refused: Refused, models: Path) -> None:
    path = models / "tones" / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:100])
    assert "/models/tones/1/model.onnx is not the file that was published" in refused(*mounted(models))


def test_a_repository_that_is_not_mounted(refused: Refused) -> None:
    assert "/elsewhere cannot be listed" in refused("--env", "PETALPAW_MODELS=/elsewhere")


def test_a_gpu_that_is_not_there(refused: Refused) -> None:
    assert "device 'cuda' was demanded" in refused("--env", "PETALPAW_DEVICE=cuda")


def test_a_wrong_setting(refused: Refused) -> None:
    said = refused("--env", "PETALPAW_TOP_K=many", "--env", "PETALPAW_BATCHING=yes")
    assert "PETALPAW_TOP_K is 'many'" in said
    assert "PETALPAW_BATCHING is 'yes': Input should be 'auto', 'streams' or 'adaptive'" in said


def test_a_port_in_use(refused: Refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--env", f"PORT={port}")
    assert f"cannot listen on 127.0.0.1 port {port} (Address already in use)" in said


def test_too_little_memory(refused: Refused) -> None:
    assert "may use 67 MB of memory" in refused("--memory", "64m")


def test_too_little_memory_for_the_models_is_said() -> None:
    with running(*GUARDED, "--memory", "230m", "--memory-swap", "230m") as one:
        until = time.monotonic() + 120
        while "for which 241 MB of memory were not enough; raise the limit" not in one.said():
            assert time.monotonic() < until, one.said()
            time.sleep(0.5)
