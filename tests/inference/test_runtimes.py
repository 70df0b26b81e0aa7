"""Runtimes are imported when chosen, and the device is the one that was asked for or an error."""

import importlib
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from inference import classifier
from inference.classifier import Classifier
from inference.errors import DeviceUnavailable, ManifestInvalid, RuntimeMissing, SelfTestFailed
from inference.golden import golden_crops
from inference.prediction import Logits
from inference.preprocessing import Crop
from inference.repository import Artifact
from inference.runtimes.base import Device, Load
from inference.runtimes.onnx import OnnxRuntime
from inference.runtimes.registry import (
    AUTOMATIC,
    CANDIDATES,
    EXTRAS,
    RUNTIMES,
    cuda_device_count,
    load_runtime,
    runtime_class,
)

no_gpu = pytest.mark.skipif(cuda_device_count() > 0, reason="there is a GPU")


@pytest.mark.parametrize("name", RUNTIMES)
def test_registered_runtimes_exist(name: str) -> None:
    chosen = runtime_class(name)
    assert chosen.name == name
    assert chosen.file.startswith("model.")


def test_extras_belong_to_runtimes() -> None:
    assert set(EXTRAS) <= set(RUNTIMES)


def test_unknown_runtime(artifact: Artifact) -> None:
    with pytest.raises(RuntimeMissing, match="there is no runtime 'tvm'; choose one of onnx, tensorrt, torch"):
        Classifier.load(artifact, runtime="tvm")


def test_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "inference.runtimes.torchscript", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(RuntimeMissing, match=r"'torchscript' needs a package \(.*torch.*\); install petalpaw\[train\]"):
        runtime_class("torchscript")


def test_missing_file(artifact: Artifact) -> None:
    with pytest.raises(RuntimeMissing, match=r"needs .*model\.torchscript\.pt, which the artifact does not have"):
        load_runtime("torchscript", artifact.folder, "cpu", Load())


def test_file_that_was_never_published(exported: Path) -> None:
    (exported / "model.torchscript.pt").write_bytes(b"dropped in by someone")
    with pytest.raises(RuntimeMissing, match=r"was published without model\.torchscript\.pt"):
        Classifier.load(Artifact.open(exported), runtime="torchscript")


def test_onnx_says_what_computes(artifact: Artifact) -> None:
    runtime = load_runtime("onnx", artifact.folder, "cpu", Load())
    assert (runtime.name, runtime.device, runtime.execution_provider) == ("onnx", "cpu", "CPUExecutionProvider")


@pytest.mark.parametrize("batch", [1, 2, 7, 8])
def test_onnx_takes_any_batch(artifact: Artifact, batch: int) -> None:
    runtime = load_runtime("onnx", artifact.folder, "cpu", Load(threads=2))
    crops = golden_crops(32)[:batch]
    logits = runtime.run(crops)
    assert logits.dtype == np.float32
    assert_allclose(logits, crops.astype(np.float32).mean(axis=(1, 2)) / 32, atol=1e-5)


@no_gpu
@pytest.mark.parametrize("name", ["onnx", "torchscript"])
def test_cuda_is_never_replaced_silently(exported: Path, name: str) -> None:
    (exported / "model.torchscript.pt").touch()
    with pytest.raises(DeviceUnavailable, match=r"device 'cuda' was demanded but .*; .*or choose device 'cpu'"):
        load_runtime(name, exported, "cuda", Load())


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


@no_gpu
def test_tensorrt_says_what_it_needs(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceUnavailable, match="runs on cuda only, not on 'cpu'"):
        Classifier.load(artifact, runtime="tensorrt")
    with pytest.raises(
        DeviceUnavailable, match=r"it needs an NVIDIA GPU, .* TensorRT 10 .*or choose runtime 'onnx' \("
    ):
        Classifier.load(artifact, runtime="tensorrt", device="cuda")


def test_a_runtime_for_the_cpu_refuses_a_gpu(artifact: Artifact) -> None:
    with pytest.raises(DeviceUnavailable, match="runtime 'openvino' runs on cpu only, not on 'cuda'; choose another"):
        Classifier.load(artifact, runtime="openvino", device="cuda")


@pytest.mark.parametrize("streams", [1, 2])
def test_openvino_agrees_with_onnx(artifact: Artifact, streams: int) -> None:
    openvino = Classifier.load(artifact, runtime="openvino", device="cpu", streams=streams)
    onnx = Classifier.load(artifact, device="cpu")
    assert (openvino.runtime.name, openvino.runtime.execution_provider) == ("openvino", "openvino-f32")
    crops = golden_crops(32)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(openvino.logits, [crops[index : index + 1] for index in range(8)] * 8))
    assert_allclose(np.concatenate(answers[:8]), onnx.logits(crops), atol=1e-5)
    assert_array_equal(np.concatenate(answers), np.concatenate(answers[:8] * 8))
    assert_allclose(openvino.logits(crops[:, :, ::-1]), onnx.logits(crops), atol=1e-5)


def test_bf16_is_demanded_by_name_and_says_so(artifact: Artifact) -> None:
    pytest.importorskip("openvino")
    core = importlib.import_module("inference.runtimes.openvino")._core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(DeviceUnavailable, match="this CPU does not compute in bf16; choose runtime 'openvino'"):
            Classifier.load(artifact, runtime="openvino-bf16")
        return
    loaded = Classifier.load(artifact, runtime="openvino-bf16", device="cpu")
    assert (loaded.runtime.name, loaded.runtime.execution_provider) == ("openvino-bf16", "openvino-bf16")


_SIGNAL = """
import gc, os, signal, sys
from pathlib import Path
from inference.classifier import Classifier
from inference.repository import Artifact

artifact = Artifact.open(Path(sys.argv[1]))
models = [Classifier.load(artifact, runtime="openvino", device="cpu") for _ in range(2)]
while models:
    models.pop(0)
    gc.collect()
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(True))
os.kill(os.getpid(), signal.SIGINT)
sys.exit(0 if heard else 1)
"""


def test_a_signal_is_survived_after_openvino_models_went(artifact: Artifact) -> None:
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", _SIGNAL, str(artifact.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr)


def test_openvino_reports_to_nobody() -> None:
    """Its converter would tell its makers of every import; whoever wants it can still import it."""
    code = """
import sys, inference.runtimes.openvino
print([name for name in sys.modules if "telemetry" in name or name == "openvino.tools.ovc"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_damaged_model_for_openvino(exported: Path, replace: Callable[..., Path]) -> None:
    replace(exported, "model.onnx", b"not a model")
    with pytest.raises(ManifestInvalid, match=r"model\.onnx cannot be loaded by OpenVINO .*choose another runtime"):
        Classifier.load(Artifact.open(exported), runtime="openvino", device="cpu")


class Slow(OnnxRuntime):
    name = "slow"

    def run(self, crops: Crop) -> Logits:
        time.sleep(0.005)
        return super().run(crops)


class Wrong(OnnxRuntime):
    name = "wrong"

    def run(self, crops: Crop) -> Logits:
        return super().run(crops) + np.float32(1)


class Gpu(OnnxRuntime):
    name = "gpu"
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)


@pytest.fixture
def race(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let runtime auto choose between these names."""
    for runtime in (Slow, Wrong, Gpu):
        monkeypatch.setitem(RUNTIMES, runtime.name, f"{__name__}:{runtime.__name__}")
    monkeypatch.setitem(RUNTIMES, "absent", "inference.runtimes.absent:Runtime")
    return lambda *names: monkeypatch.setitem(AUTOMATIC, "auto", names)


def test_auto_is_the_fastest_that_gives_the_right_answers(
    artifact: Artifact, race: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    race("slow", "absent", "wrong", "gpu", "onnx")
    assert Classifier.load(artifact, runtime="auto", device="cpu").runtime.name == "onnx"
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.getMessage().startswith(
        "runtime auto: without wrong: colours/1 on wrong (cpu): logits of the golden"
    )
    race("wrong", "slow")
    assert Classifier.load(artifact, runtime="auto", device="cpu").runtime.name == "slow"
    race("wrong")
    with pytest.raises(SelfTestFailed, match="differ from PyTorch's by 1"):
        Classifier.load(artifact, runtime="auto", device="cpu")


def test_auto_tries_what_is_installed_and_never_pytorch(artifact: Artifact) -> None:
    assert Classifier.load(artifact, runtime="auto", device="cpu").runtime.name in CANDIDATES
    assert "torchscript" not in CANDIDATES
    assert all(runtime_class(name).deviation == 0 for name in CANDIDATES)
