"""ONNX Runtime on the CPU or on CUDA."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime

from inference.errors import DeviceUnavailable, ManifestInvalid
from inference.manifest import INT8
from inference.prediction import Logits
from inference.preprocessing import Crop
from inference.runtimes.base import Device, Load

Provider = tuple[str, dict[str, str]]
"""An execution provider and its options."""

_SEVERITY_ERROR = 3
# TF32 would round to 10 bits inside convolutions and break parity; HEURISTIC avoids seconds of search per batch size.
CUDA: Provider = ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
CPU: Provider = ("CPUExecutionProvider", {})


class OnnxRuntime:
    """An ONNX Runtime session over model.onnx."""

    name: ClassVar[str] = "onnx"
    file: ClassVar[str] = "model.onnx"
    devices: ClassVar[tuple[Device, ...]] = ("cpu", "cuda")
    deviation: ClassVar[float] = 0
    missing: ClassVar[str] = (
        "device 'cuda' was demanded but ONNX Runtime could not load its CUDA execution provider; it needs an NVIDIA "
        "GPU, a driver for CUDA 13 and the libraries of petalpaw[cuda]; provide them, or choose device 'cpu'"
    )

    def __init__(self, folder: Path, device: Device, load: Load) -> None:
        self.device: Device = device
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = load.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SEVERITY_ERROR
        # Spinning threads would take the cores that decode the next picture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [CPU] if device == "cpu" else [*self._on_gpu(folder / self.file), CPU]
        self.execution_provider = providers[0][0]
        model = self._model(folder)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise ManifestInvalid(
                f"{folder / self.file} cannot be loaded by ONNX Runtime {onnxruntime.__version__} ({error}); "
                "export it again with this version"
            ) from error
        # ONNX Runtime only warns when a provider fails to load, then runs on the CPU.
        if self._session.get_providers()[0] != self.execution_provider:
            raise DeviceUnavailable(self.missing)

    def _model(self, folder: Path) -> Path | bytes:
        """What the session is made from."""
        return folder / self.file

    def run(self, crops: Crop) -> Logits:
        """uint8 (batch, height, width, 3) → float32 (batch, classes)."""
        (logits,) = self._session.run(["logits"], {"images": crops})
        return logits  # type: ignore[no-any-return]  # onnxruntime publishes no types

    def trim(self) -> None:
        """Give the arena's unused memory back: after the self-test's batches, 55 MB per MobileNetV2 on the CPU.

        Shrinking is part of a run; doing it in every run would cost up to a quarter of the speed.
        """
        if self.device != "cpu":
            return
        shrinking = onnxruntime.RunOptions()
        shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        (images,) = self._session.get_inputs()
        one = np.zeros((1, *images.shape[1:]), dtype=np.uint8)
        self._session.run(["logits"], {"images": one}, shrinking)

    def _on_gpu(self, model: Path) -> list[Provider]:  # noqa: ARG002 – TensorRT keeps an engine for each
        """The providers for a model, best first. Raises DeviceUnavailable."""
        self._require(CUDA[0])
        # CUDA's libraries come in Python packages.
        onnxruntime.preload_dlls()
        return [CUDA]

    def _require(self, provider: str) -> None:
        if provider not in onnxruntime.get_available_providers():
            raise DeviceUnavailable(self.missing)


class OnnxInt8Runtime(OnnxRuntime):
    """The same over model.int8.onnx: faster where the CPU multiplies 8-bit integers (VNNI), with other logits.

    It is held to the file's own golden logits. Kernels of other CPUs round elsewhere: a tenth of the span is allowed,
    which products that overflow, as they can without VNNI, exceed.
    """

    name: ClassVar[str] = "onnx-int8"
    file: ClassVar[str] = INT8
    devices: ClassVar[tuple[Device, ...]] = ("cpu",)
    deviation: ClassVar[float] = 0.1
