"""The runtimes by name. A runtime's package is imported when it is chosen, not before."""

import ctypes
import importlib
from pathlib import Path

from inference.errors import RuntimeMissing
from inference.runtimes.base import Device, Runtime

RUNTIMES = {
    "onnx": "inference.runtimes.onnx:OnnxRuntime",
    "torchscript": "inference.runtimes.torchscript:TorchScriptRuntime",
}
EXTRAS = {"torchscript": "train"}
"""The extra of the petalpaw package that brings what a runtime needs; the others need none."""


def runtime_class(name: str) -> type[Runtime]:
    """The class behind a runtime's name. Raises RuntimeMissing for an unknown or uninstalled one."""
    if name not in RUNTIMES:
        raise RuntimeMissing(f"there is no runtime {name!r}; choose one of {', '.join(RUNTIMES)}")
    module, _, attribute = RUNTIMES[name].partition(":")
    try:
        found: type[Runtime] = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        extra = f"[{EXTRAS[name]}]" if name in EXTRAS else ""
        raise RuntimeMissing(f"runtime {name!r} needs a package ({error}); install petalpaw{extra}") from error
    return found


def load_runtime(name: str, folder: Path, device: Device, threads: int) -> Runtime:
    """Load an artifact's model into the named runtime. Raises RuntimeMissing or DeviceUnavailable."""
    chosen = runtime_class(name)
    if not (folder / chosen.file).is_file():
        raise RuntimeMissing(f"runtime {name!r} needs {folder / chosen.file}, which the artifact does not have")
    return chosen(folder, device, threads)


def cuda_device_count() -> int:
    """The number of GPUs that the NVIDIA driver shows to this process; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
