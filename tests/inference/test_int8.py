"""model.int8.onnx when it is loaded: chosen by name, held to its own golden logits, refused where it differs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose

from inference.classifier import Classifier
from inference.errors import (
    DeviceUnavailable,
    DigestMismatch,
    ManifestInvalid,
    ParameterInvalid,
    PublishRefused,
    RuntimeMissing,
    SelfTestFailed,
)
from inference.features import FeatureClassifier
from inference.golden import golden_crops
from inference.manifest import INT8, MANIFEST
from inference.repository import Artifact, Repository
from inference.runtimes.registry import AUTOMATIC, RUNTIMES
from tests.conftest import INT8_FIGURE, INT8_SCALE
from tests.inference.conftest import Change

FIGURE = INT8_FIGURE.model_dump()


@pytest.mark.parametrize("name", ["onnx-int8", "openvino-int8"])
def test_it_is_loaded_by_name_and_gives_its_own_answers(quantized: Path, name: str) -> None:
    if name.startswith("openvino"):
        pytest.importorskip("openvino")
    loaded = Classifier.load(Artifact.open(quantized), runtime=name, device="cpu")
    assert loaded.runtime.name == name
    crops = golden_crops(32)
    assert_allclose(loaded.logits(crops), crops.astype(np.float32).mean(axis=(1, 2)) / INT8_SCALE, atol=1e-4)
    assert_allclose(
        Classifier.load(Artifact.open(quantized)).logits(crops),
        crops.astype(np.float32).mean(axis=(1, 2)) / 32,
        atol=1e-4,
    )


def test_another_file_than_was_measured_fails_the_self_test(
    quantized: Path, replace: Callable[[Path, str, bytes], Path]
) -> None:
    """Such as kernels whose products overflow: the file is right, its answers are not."""
    model = onnx.load(quantized / INT8)
    (scale,) = (tensor for tensor in model.graph.initializer if tensor.name == "scale")
    scale.CopyFrom(onnx.numpy_helper.from_array(np.float32(2 * INT8_SCALE), "scale"))
    replace(quantized, INT8, model.SerializeToString())
    with pytest.raises(SelfTestFailed, match=r"differ from those of model\.int8\.onnx at its export by"):
        Classifier.load(Artifact.open(quantized), runtime="onnx-int8", device="cpu")
    assert Classifier.load(Artifact.open(quantized), device="cpu").runtime.name == "onnx"


def test_a_tampered_file_is_refused(quantized: Path) -> None:
    data = bytearray((quantized / INT8).read_bytes())
    data[-1] ^= 1
    (quantized / INT8).write_bytes(data)
    with pytest.raises(DigestMismatch, match=r"model\.int8\.onnx is not the file that was published"):
        Artifact.open(quantized)


def test_file_and_description_belong_together(quantized: Path, edit: Callable[[Path, Change], Path]) -> None:
    edit(quantized, lambda content: content.update(quantized=None))
    with pytest.raises(ManifestInvalid, match=r"`quantized` describes model\.int8\.onnx, and only one of the two"):
        Artifact.open(quantized)


def test_golden_logits_of_another_shape(quantized: Path, edit: Callable[[Path, Change], Path]) -> None:
    edit(quantized, lambda content: content["quantized"]["golden"]["logits"].pop())
    with pytest.raises(ManifestInvalid, match="golden logits are not 8 rows of 3 numbers"):
        Artifact.open(quantized)


def test_an_artifact_without_it(artifact: Artifact) -> None:
    with pytest.raises(
        RuntimeMissing, match=r"was published without model\.int8\.onnx, which runtime 'onnx-int8' needs"
    ):
        Classifier.load(artifact, runtime="onnx-int8", device="cpu")
    assert Classifier.load(artifact, runtime="auto-int8", device="cpu").runtime.name in AUTOMATIC["auto"]


def test_int8_on_a_gpu_is_refused(quantized: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="runtime 'onnx-int8' runs on cpu only"):
        Classifier.load(Artifact.open(quantized), runtime="onnx-int8", device="cuda")


def test_automatically_only_where_asked_for_and_faster(
    quantized: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from inference.runtimes import onnx as module
    from tests.inference.test_runtimes import Slow

    assert not any(name.endswith("int8") for name in AUTOMATIC["auto"])
    monkeypatch.setitem(RUNTIMES, "slow", f"{Slow.__module__}:Slow")
    monkeypatch.setitem(AUTOMATIC, "auto-int8", ("slow", "onnx-int8"))
    artifact = Artifact.open(quantized)
    assert Classifier.load(artifact, runtime="auto-int8", device="cpu").runtime.name == "onnx-int8"
    assert caplog.records == []
    monkeypatch.setattr(module.OnnxInt8Runtime, "run", Slow.run)
    monkeypatch.setitem(AUTOMATIC, "auto-int8", ("onnx", "onnx-int8"))
    assert Classifier.load(artifact, runtime="auto-int8", device="cpu").runtime.name == "onnx"


def test_publishing_asks_the_figures(quantized: Path, edit: Callable[[Path, Change], Path], tmp_path: Path) -> None:
    models = Repository(tmp_path / "models")
    published = models.publish(quantized)
    assert published.manifest.quantized is not None
    assert Classifier.load(published, runtime="onnx-int8", device="cpu").runtime.name == "onnx-int8"
    for change in ({"agreement": 0.99}, {"accuracy": 0.98}):
        edit(quantized, lambda content, change=change: content["quantized"]["figures"][0].update(FIGURE | change))  # type: ignore[misc]
        with pytest.raises(
            PublishRefused, match=r"not near enough: onnx-int8 gives model\.onnx's label on .*500 valid"
        ):
            models.publish(quantized)
    assert models.versions("colours") == ["1"]


def test_features_come_in_full_precision_only(quantized: Path) -> None:
    loaded = Classifier.load(Artifact.open(quantized), runtime="onnx-int8", device="cpu")
    with pytest.raises(ParameterInvalid, match="runtime 'onnx-int8' gives no features; choose runtime 'onnx'"):
        FeatureClassifier.of(loaded)


def test_manifests_without_the_key_are_read_as_before(exported: Path, edit: Callable[[Path, Change], Path]) -> None:
    edit(exported, lambda content: content.pop("quantized"))
    assert "quantized" not in json.loads((exported / MANIFEST).read_text())
    assert Artifact.open(exported).manifest.quantized is None
