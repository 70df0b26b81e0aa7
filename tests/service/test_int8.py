"""The int8 file behind a real server and the scoring command, each with the answers that the file itself gives."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import petalpaw
from inference.manifest import INT8
from inference.prediction import probabilities
from inference.preprocessing import Preprocessing
from inference.repository import Repository
from tests.conftest import INT8_SCALE
from tests.service.conftest import Server, start


@pytest.fixture
def models(quantized: Path, tmp_path: Path) -> Path:
    """A repository with one model that has an int8 file."""
    root = tmp_path / "models"
    Repository(root).publish(quantized)
    return root


def wanted(photo: bytes) -> float:
    """The best probability that the int8 file gives; model.onnx gives another."""
    means = Preprocessing(resize=36, crop=32)(photo).astype(np.float32).mean(axis=(0, 1))
    best, other = (float(probabilities(means[None] / scale, 1.0).max()) for scale in (INT8_SCALE, 32.0))
    assert abs(best - other) > 1e-3
    return best


def test_a_server_answers_from_it_and_says_so(models: Path, tmp_path: Path, picture: Callable[..., bytes]) -> None:
    photo = picture()
    served = Server(*start(tmp_path, models=models, runtime="onnx-int8"))
    try:
        served.wait()
        answer = served.client.post("/classify", content=photo, headers={"content-type": "image/jpeg"}).json()
        assert answer["runtime"]["name"] == "onnx-int8"
        assert answer["predictions"][0]["label"] == "red"
        assert answer["predictions"][0]["probability"] == pytest.approx(wanted(photo), abs=1e-4)
    finally:
        served.stop()


def test_a_server_refuses_a_tampered_one(models: Path, tmp_path: Path) -> None:
    with (models / "colours" / "1" / INT8).open("ab") as file:
        file.write(b"more")
    process, _, log = start(tmp_path, models=models, runtime="auto-int8")
    assert process.wait(timeout=60) == 3
    assert "model.int8.onnx is not the file that was published" in log.read_text()


def test_score_writes_its_answers(models: Path, tmp_path: Path, picture: Callable[..., bytes]) -> None:
    photo = picture()
    (tmp_path / "a.jpg").write_bytes(photo)
    arguments = ["score", str(tmp_path / "a.jpg"), "--models", str(models), "--runtime", "onnx-int8"]
    result = CliRunner().invoke(petalpaw.app, [*arguments, "--output", str(tmp_path / "rows.csv")])
    assert result.exit_code == 0, result.output

    (row,) = csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text()))
    assert (row["runtime"], row["label"]) == ("onnx-int8", "red")
    assert float(row["probability"]) == pytest.approx(wanted(photo), abs=1e-4)
