"""TensorRT, as ONNX Runtime's execution provider. Written after its documentation: no GPU has run it yet."""

import ctypes
import importlib.util
import os
from pathlib import Path
from typing import ClassVar

from inference.errors import DeviceUnavailable
from inference.manifest import file_entry
from inference.runtimes.base import Device
from inference.runtimes.onnx import OnnxRuntime, Provider

CACHE = "PETALPAW_CACHE"
_LIBRARIES = ("libnvinfer.so.10", "libnvonnxparser.so.10")


class TensorRtRuntime(OnnxRuntime):
    """An engine in full precision, built from model.onnx when it is first loaded, which takes minutes, and then kept.

    What TensorRT does not know runs on CUDA.
    """

    name: ClassVar[str] = "tensorrt"
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    missing: ClassVar[str] = (
        "runtime 'tensorrt' was demanded but ONNX Runtime could not load it; it needs an NVIDIA GPU, a driver for "
        "CUDA 13, the libraries of petalpaw[cuda] and TensorRT 10 (pip install tensorrt-cu13); provide them, or "
        "choose runtime 'onnx'"
    )

    def _on_gpu(self, model: Path) -> list[Provider]:
        provider = "TensorrtExecutionProvider"
        self._require(provider)
        # Before a library of NVIDIA's reads it: TF32 would round to 10 bits inside convolutions and break parity.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        fallback = super()._on_gpu(model)
        self._preload()
        # ONNX Runtime names an engine after the graph, not after the weights.
        engines = _cache() / "tensorrt" / file_entry(model).sha256.removeprefix("sha256:")
        engines.mkdir(parents=True, exist_ok=True)
        options = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engines), "trt_fp16_enable": "0"}
        return [(provider, options), *fallback]

    def _preload(self) -> None:
        """Load TensorRT from its Python package, or from where the system has it. Raises DeviceUnavailable."""
        package = importlib.util.find_spec("tensorrt_libs")
        folder = Path(package.origin).parent if package and package.origin else Path()
        for library in _LIBRARIES:
            try:
                ctypes.CDLL(str(folder / library), mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                raise DeviceUnavailable(f"{self.missing} ({error})") from error


def _cache() -> Path:
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "petalpaw")
