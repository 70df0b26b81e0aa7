"""The runtimes by name. A runtime's package is imported when it is chosen, not before."""

import ctypes
import importlib
from pathlib import Path

from inference.errors import DeviceUnavailable, RuntimeMissing
from inference.runtimes.base import Device, Load, Runtime

RUNTIMES = {
    "onnx": "inference.runtimes.onnx:OnnxRuntime",
    "tensorrt": "inference.runtimes.tensorrt:TensorRtRuntime",
    "torchscript": "inference.runtimes.torchscript:TorchScriptRuntime",
    "openvino": "inference.runtimes.openvino:OpenVinoRuntime",
    "openvino-bf16": "inference.runtimes.openvino:OpenVinoBf16Runtime",
    "onnx-int8": "inference.runtimes.onnx:OnnxInt8Runtime",
    "openvino-int8": "inference.runtimes.openvino:OpenVinoInt8Runtime",
}
CANDIDATES = ("onnx", "openvino")
"""Full precision, and cheap to try: PyTorch takes seconds to import, TensorRT minutes to build an engine."""

INT8_RUNTIMES = ("onnx-int8", "openvino-int8")
"""What reads the artifact's int8 file, where it has one."""

AUTOMATIC = {"auto": CANDIDATES, "auto-int8": (*CANDIDATES, *INT8_RUNTIMES)}
"""Names that stand for the fastest of several; `inference.trial` finds it. int8 is chosen only where asked for."""

EXTRAS = dict.fromkeys(("openvino", "openvino-bf16", "openvino-int8"), "openvino") | {"torchscript": "train"}
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


def load_runtime(name: str, folder: Path, device: Device, load: Load) -> Runtime:
    """Load an artifact's model into the named runtime. Raises RuntimeMissing, DeviceUnavailable or ManifestInvalid."""
    chosen = runtime_class(name)
    if device not in chosen.devices:
        raise DeviceUnavailable(
            f"runtime {name!r} runs on {' and '.join(chosen.devices)} only, not on {device!r}; choose another runtime, "
            f"or device {chosen.devices[0]!r} where the machine has one"
        )
    if not (folder / chosen.file).is_file():
        raise RuntimeMissing(f"runtime {name!r} needs {folder / chosen.file}, which the artifact does not have")
    return chosen(folder, device, load)


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
