"""Models whose weights lie in a second file beside model.onnx: exported, proven, published, served."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from inference.classifier import Classifier
from inference.errors import DigestMismatch
from inference.golden import golden_crops
from inference.manifest import MANIFEST, PARITY, file_entry, read_manifest
from inference.repository import Artifact, Repository
from inference.runtimes.base import Load
from inference.runtimes.registry import load_runtime
from training.backbones import Normalized
from training.export import eager_logits, export_onnx
from training.parity import Comparison, report
from training.sections import Normalization

SHIPPED = Path(__file__).parents[2] / "models" / "catdog" / "1"


def test_weights_beyond_one_file_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3))
    module = Normalized(network, Normalization()).requires_grad_(False).eval()
    crops = golden_crops(16)
    export_onnx(module, crops[:2], tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    monkeypatch.setattr("training.export._ONE_FILE", 0)
    export_onnx(module, crops[:2], tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size >= 64 * 3 * 9 * 4
    found = load_runtime("onnx", tmp_path, "cpu", Load()).run(crops)
    np.testing.assert_allclose(found, eager_logits(module, crops), atol=1e-5)


@pytest.fixture
def exported(tmp_path: Path) -> Artifact:
    """The shipped model with its weights moved out, not yet proven."""
    folder = tmp_path / "exported"
    shutil.copytree(SHIPPED, folder)
    onnx.save(
        onnx.load(folder / "model.onnx"),
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.onnx.data",
    )
    (folder / PARITY).unlink()
    names = ("README.md", "model.onnx", "model.onnx.data", "model.torchscript.pt")
    manifest = read_manifest(folder)[0].model_copy(
        update={"version": "0", "files": {name: file_entry(folder / name) for name in names}}
    )
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return Artifact.open(folder)


def test_both_files_are_proven_published_and_served(exported: Artifact, tmp_path: Path) -> None:
    same = [Comparison(name, "cpu", 1, 0.0, 0.0, 1.0, 9, ()) for name in ("onnx", "torchscript")]
    passed = report(exported, same)
    assert passed.problems == ()
    assert set(passed.files) == {"model.onnx", "model.onnx.data", "model.torchscript.pt"}
    published = Repository(tmp_path / "models").publish(exported.folder)
    Classifier.load(published, runtime="onnx", device="cpu")  # replays the golden inputs
    (published.folder / "model.onnx.data").unlink()
    with pytest.raises(DigestMismatch, match=r"model\.onnx\.data"):
        Repository(tmp_path / "models").open(exported.name)
