"""Runtimes are imported when chosen, and the device is the one that was asked for or an error."""

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from inference import classifier
from inference.classifier import Classifier
from inference.errors import DeviceUnavailable, ManifestInvalid, RuntimeMissing
from inference.golden import golden_crops
from inference.repository import Artifact
from inference.runtimes.registry import EXTRAS, RUNTIMES, cuda_device_count, load_runtime, runtime_class

no_gpu = pytest.mark.skipif(cuda_device_count() > 0, reason="there is a GPU")


@pytest.mark.parametrize("name", RUNTIMES)
def test_registered_runtimes_exist(name: str) -> None:
    chosen = runtime_class(name)
    assert chosen.name == name
    assert chosen.file.startswith("model.")


def test_extras_belong_to_runtimes() -> None:
    assert set(EXTRAS) <= set(RUNTIMES)


def test_unknown_runtime(artifact: Artifact) -> None:
    with pytest.raises(RuntimeMissing, match="there is no runtime 'tensorrt'; choose one of onnx, torchscript"):
        Classifier.load(artifact, runtime="tensorrt")


def test_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "inference.runtimes.torchscript", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(RuntimeMissing, match=r"'torchscript' needs a package \(.*torch.*\); install petalpaw\[train\]"):
        runtime_class("torchscript")


def test_missing_file(artifact: Artifact) -> None:
    with pytest.raises(RuntimeMissing, match=r"needs .*model\.torchscript\.pt, which the artifact does not have"):
        load_runtime("torchscript", artifact.folder, "cpu", 1)


def test_file_that_was_never_published(exported: Path) -> None:
    (exported / "model.torchscript.pt").write_bytes(b"dropped in by someone")
    with pytest.raises(RuntimeMissing, match=r"was published without model\.torchscript\.pt"):
        Classifier.load(Artifact.open(exported), runtime="torchscript")


def test_onnx_says_what_computes(artifact: Artifact) -> None:
    runtime = load_runtime("onnx", artifact.folder, "cpu", 1)
    assert (runtime.name, runtime.device, runtime.execution_provider) == ("onnx", "cpu", "CPUExecutionProvider")


@pytest.mark.parametrize("batch", [1, 2, 7, 8])
def test_onnx_takes_any_batch(artifact: Artifact, batch: int) -> None:
    runtime = load_runtime("onnx", artifact.folder, "cpu", 2)
    crops = golden_crops(32)[:batch]
    logits = runtime.run(crops)
    assert logits.dtype == np.float32
    assert_allclose(logits, crops.astype(np.float32).mean(axis=(1, 2)) / 32, atol=1e-5)


@no_gpu
@pytest.mark.parametrize("name", ["onnx", "torchscript"])
def test_cuda_is_never_replaced_silently(exported: Path, name: str) -> None:
    (exported / "model.torchscript.pt").touch()
    with pytest.raises(DeviceUnavailable, match=r"device 'cuda' was demanded but .*; .*or choose device 'cpu'"):
        load_runtime(name, exported, "cuda", 1)


@no_gpu
def test_auto_is_the_cpu_without_a_gpu(artifact: Artifact, caplog: pytest.LogCaptureFixture) -> None:
    assert Classifier.load(artifact, device="auto").runtime.device == "cpu"
    assert caplog.records == []


@no_gpu
def test_auto_says_why_a_gpu_goes_unused(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(classifier, "cuda_device_count", lambda: 1)
    with caplog.at_level(logging.WARNING):
        assert Classifier.load(artifact, device="auto").runtime.device == "cpu"
    assert "using the CPU although there is a GPU: device 'cuda' was demanded but" in caplog.text


@pytest.mark.cuda
@pytest.mark.skipif(cuda_device_count() == 0, reason="there is no GPU")
def test_cuda_computes_on_cuda(artifact: Artifact) -> None:
    classifier = Classifier.load(artifact, device="cuda", batch_sizes=(4,))
    assert classifier.runtime.execution_provider == "CUDAExecutionProvider"


def test_damaged_onnx_with_the_right_digest(exported: Path, replace: Callable[..., Path]) -> None:
    model = bytearray((exported / "model.onnx").read_bytes())
    for data in (b"", b"not a model", bytes(model[: len(model) // 2])):
        replace(exported, "model.onnx", data)
        with pytest.raises(ManifestInvalid, match=r"model\.onnx cannot be loaded by ONNX Runtime .*export it again"):
            Classifier.load(Artifact.open(exported))


def save_torchscript(path: Path) -> None:
    import torch

    class Means(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.float().mean(dim=(1, 2)) / 32

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.save(torch.jit.trace(Means(), torch.zeros(2, 32, 32, 3, dtype=torch.uint8)), path)


def test_torchscript_agrees_with_onnx(exported: Path, replace: Callable[..., Path], tmp_path: Path) -> None:
    save_torchscript(tmp_path / "model.pt")
    replace(exported, "model.torchscript.pt", (tmp_path / "model.pt").read_bytes())
    artifact = Artifact.open(exported)
    script = Classifier.load(artifact, runtime="torchscript", device="cpu")
    onnx = Classifier.load(artifact, device="cpu")
    assert (script.runtime.name, script.runtime.execution_provider) == ("torchscript", "torch-cpu")
    crops = golden_crops(32)
    assert_allclose(script.logits(crops), onnx.logits(crops), atol=1e-5)
    assert_array_equal(script.logits(crops[:1]), script.logits(crops)[:1])


def test_damaged_torchscript(exported: Path, replace: Callable[..., Path]) -> None:
    replace(exported, "model.torchscript.pt", b"not a model")
    with pytest.raises(ManifestInvalid, match=r"model\.torchscript\.pt cannot be loaded by PyTorch .*export it again"):
        Classifier.load(Artifact.open(exported), runtime="torchscript", device="cpu")
