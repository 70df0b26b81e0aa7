"""ONNX Runtime on the CPU or on CUDA."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime

from inference.errors import DeviceUnavailable, ManifestInvalid
from inference.prediction import Logits
from inference.preprocessing import Crop
from inference.runtimes.base import Device

_SEVERITY_ERROR = 3
_PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# TF32 would round to 10 bits inside convolutions and break parity; HEURISTIC avoids seconds of search per batch size.
_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


class OnnxRuntime:
    """An ONNX Runtime session over model.onnx."""

    name: ClassVar[str] = "onnx"
    file: ClassVar[str] = "model.onnx"

    def __init__(self, folder: Path, device: Device, threads: int) -> None:
        self.device: Device = device
        self.execution_provider = _PROVIDERS[device]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SEVERITY_ERROR
        # Spinning threads would take the cores that decode the next picture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[Any] = [_PROVIDERS["cpu"]]
        if device == "cuda":
            _require_cuda()
            providers.insert(0, (_PROVIDERS["cuda"], _CUDA_OPTIONS))
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
            raise DeviceUnavailable(_CUDA_MISSING)

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


_CUDA_MISSING = (
    "device 'cuda' was demanded but ONNX Runtime could not load its CUDA execution provider; it needs an NVIDIA GPU, "
    "a driver for CUDA 13 and the libraries of petalpaw[cuda]; provide them, or choose device 'cpu'"
)


def _require_cuda() -> None:
    """Load CUDA's libraries from the Python packages. Raises DeviceUnavailable."""
    if _PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        raise DeviceUnavailable(_CUDA_MISSING)
    onnxruntime.preload_dlls()
