"""Features are what the last layer sees, and asking for them changes no answer."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from inference.classifier import Classifier
from inference.errors import ParameterInvalid
from inference.features import FeatureClassifier
from inference.golden import golden_crops
from inference.repository import Artifact, Repository
from inference.runtimes.base import Load
from inference.runtimes.features import _before_last_layer
from scoring.files import Files
from scoring.local import LocalEngine
from scoring.rows import Settings
from scoring.scorer import Scorer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def catdog() -> Classifier:
    return Classifier.load(Repository(ROOT / "models").open("catdog"), device="cpu")


def test_features_times_the_last_layer_are_the_logits(catdog: Classifier) -> None:
    crops = golden_crops(224)
    logits, features = FeatureClassifier.of(catdog).logits_and_features(crops)
    assert (features.shape, features.dtype) == ((len(crops), 1280), np.float32)
    weights = {
        each.name: numpy_helper.to_array(each)
        for each in onnx.load(catdog.artifact.folder / "model.onnx").graph.initializer
        if each.name.startswith("network.classifier")
    }
    by_hand = features @ weights["network.classifier.1.weight"].T + weights["network.classifier.1.bias"]
    assert np.abs(by_hand - logits).max() < 1e-4


@pytest.mark.parametrize("batch", [1, 4])
def test_logits_are_the_same_bits(catdog: Classifier, batch: int) -> None:
    with_features = FeatureClassifier.of(catdog)
    for start in range(0, 8, batch):
        crops = golden_crops(224)[start : start + batch]
        assert np.array_equal(with_features.logits_and_features(crops)[0], catdog.logits(crops))
        assert np.array_equal(with_features.logits(crops), catdog.logits(crops))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_rows_have_features(catdog: Classifier, picture: Callable[..., bytes], tmp_path: Path, batch_size: int) -> None:
    for name, data in (("a.jpg", picture()), ("b.jpg", b""), ("c.jpg", picture((30, 200, 40)))):
        (tmp_path / name).write_bytes(data)
    rows, plain = (
        list(LocalEngine(Scorer(catdog, Settings(features=wanted), batch_size=batch_size)).rows(Files([tmp_path])))
        for wanted in (True, False)
    )
    assert [len(row.features or ()) for row in rows] == [1280, 0, 1280]
    assert rows[0].features != rows[2].features
    assert [replace(row, features=None) for row in rows] == plain


def test_model_without_a_last_linear_layer(artifact: Artifact) -> None:
    with pytest.raises(ParameterInvalid, match=r"model\.onnx come from Div, not from a linear layer, so there are no"):
        FeatureClassifier.of(Classifier.load(artifact, device="cpu"))


def test_bias_of_its_own() -> None:
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["seen"]),
        onnx.helper.make_node("MatMul", ["seen", "w"], ["product"]),
        onnx.helper.make_node("Add", ["b", "product"], ["logits"]),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [], [])
    assert _before_last_layer(graph, Path("model.onnx")) == "seen"


def test_other_runtimes_have_none(catdog: Classifier) -> None:
    class Other(type(catdog.runtime)):  # type: ignore[misc]
        name = "other"

    other = Classifier(catdog.artifact, Other(catdog.artifact.folder, "cpu", Load()))
    with pytest.raises(ParameterInvalid, match="runtime 'other' gives no features; choose runtime 'onnx'"):
        FeatureClassifier.of(other)


def test_missing_package_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from pathlib import Path; from inference.classifier import Classifier\n"
        "from inference.errors import PackageMissing; from inference.features import FeatureClassifier\n"
        "from inference.repository import Repository\n"
        "try: FeatureClassifier.of(Classifier.load(Repository(Path('models')).open('catdog'), device='cpu'))\n"
        "except PackageMissing as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "install petalpaw[features]" in done.stdout
