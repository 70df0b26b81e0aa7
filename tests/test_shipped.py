"""The classifiers that ship: whole, proven, and right about real photos where there are some."""

from pathlib import Path

import pytest

from inference.classifier import Classifier
from inference.prediction import Prediction
from inference.repository import Repository
from tests.conftest import SHARED

MODELS = Repository(Path(__file__).parents[1] / "models")
PHOTOS = {"catdog": SHARED / "data/catdog/val", "flowers": SHARED / "data/flowers/train"}


@pytest.mark.parametrize("runtime", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", ["catdog", "flowers"])
def test_a_shipped_model_gives_pytorchs_answers_here(name: str, runtime: str) -> None:
    classifier = Classifier.load(MODELS.open(name), runtime=runtime, device="cpu")
    manifest = classifier.artifact.manifest
    assert {(figure.runtime, figure.device) for figure in manifest.parity} >= {("onnx", "cpu"), ("torchscript", "cpu")}
    assert all(figure.top1_agreement == 1 for figure in manifest.parity)
    assert manifest.metrics is not None
    assert manifest.metrics.split == "test"


@pytest.mark.parametrize("name", ["catdog", "flowers"])
def test_a_shipped_model_knows_real_photos(name: str) -> None:
    classifier = Classifier.load(MODELS.open(name), device="cpu")
    folders = [PHOTOS[name] / label for label in classifier.labels]
    if not all(folder.is_dir() for folder in folders):
        pytest.skip("the photos are not here")
    right = 0
    for folder in folders:
        photos = sorted(folder.iterdir())[:20]
        answers = classifier.classify([photo.read_bytes() for photo in photos])
        right += sum(isinstance(answer, Prediction) and answer.label == folder.name for answer in answers)
    assert right >= 0.9 * 20 * len(folders)
