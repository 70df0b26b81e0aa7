"""OpenVINO on the CPU."""

import functools
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from inference.errors import DeviceUnavailable, ManifestInvalid
from inference.manifest import INT8
from inference.prediction import Logits
from inference.preprocessing import Crop
from inference.runtimes.base import Device, Load

# openvino imports its converter if it can, which reports every import to its makers, and takes longer than the rest.
_CONVERTER = "openvino.tools.ovc"
sys.modules.setdefault(_CONVERTER, None)  # type: ignore[arg-type]  # None is how Python marks what must not be imported
import openvino  # noqa: E402

if sys.modules[_CONVERTER] is None:
    del sys.modules[_CONVERTER]


@functools.cache
def _core() -> openvino.Core:
    """OpenVINO's core, one for the process and never let go.

    Each lays an alternate signal stack for its thread and puts back the one before it when it goes: of two, the second
    puts back what the first has freed, and the next signal, such as Ctrl-C, ends the process.
    """
    return openvino.Core()


class OpenVinoRuntime:
    """A model compiled by OpenVINO from model.onnx, in full precision: by itself it would take bf16 where it can."""

    name: ClassVar[str] = "openvino"
    file: ClassVar[str] = "model.onnx"
    devices: ClassVar[tuple[Device, ...]] = ("cpu",)
    deviation: ClassVar[float] = 0
    precision: ClassVar[str] = "f32"

    def __init__(self, folder: Path, device: Device, load: Load) -> None:
        core = _core()
        if self.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise DeviceUnavailable(
                f"runtime {self.name!r} was demanded but this CPU does not compute in bf16; choose runtime 'openvino'"
            )
        self.device: Device = device
        self.execution_provider = "openvino-int8" if self.file == INT8 else f"openvino-{self.precision}"
        budget = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "NUM_STREAMS": str(load.streams),
            "INFERENCE_NUM_THREADS": str(load.streams * load.threads),
            # Pinned threads would not leave a core that decodes the next picture.
            "ENABLE_CPU_PINNING": "NO",
        }
        try:
            self._model = core.compile_model(folder / self.file, "CPU", budget)
        except RuntimeError as error:
            # The lines before the last say where in OpenVINO.
            reason = str(error).strip().splitlines()[-1]
            raise ManifestInvalid(
                f"{folder / self.file} cannot be loaded by OpenVINO {openvino.__version__} ({reason}); "
                "choose another runtime, or export it again"
            ) from error
        self._requests = threading.local()

    def run(self, crops: Crop) -> Logits:
        """uint8 (batch, height, width, 3) → float32 (batch, classes)."""
        request: Any = getattr(self._requests, "own", None)
        if request is None:
            request = self._requests.own = self._model.create_infer_request()
        found = request.infer({"images": np.ascontiguousarray(crops)}, share_inputs=True)
        # The request writes its next answer over this one.
        return np.array(found["logits"], dtype=np.float32)

    def trim(self) -> None:
        """Forget the requests so far, whose memory fits their largest batch."""
        self._requests = threading.local()


class OpenVinoBf16Runtime(OpenVinoRuntime):
    """The same in bf16, for CPUs with AMX: 8 bits of precision, so it can never give PyTorch's own logits.

    Its self-test allows a quarter of the golden logits' span, which still tells a wrong model. What bf16 does to the
    answers of the shipped models stands in docs/runtimes.md.
    """

    name: ClassVar[str] = "openvino-bf16"
    deviation: ClassVar[float] = 0.25
    precision: ClassVar[str] = "bf16"


class OpenVinoInt8Runtime(OpenVinoRuntime):
    """The same from model.int8.onnx, held to the file's own golden logits like `onnx-int8`; the rest stays in f32."""

    name: ClassVar[str] = "openvino-int8"
    file: ClassVar[str] = INT8
    deviation: ClassVar[float] = 0.1
