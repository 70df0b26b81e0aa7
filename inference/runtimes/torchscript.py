"""TorchScript on the CPU or on CUDA: the only module under inference/ that imports torch."""

import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from inference.errors import DeviceUnavailable, ManifestInvalid
from inference.prediction import Logits
from inference.preprocessing import Crop
from inference.runtimes.base import Device, Load


class TorchScriptRuntime:
    """A TorchScript module over model.torchscript.pt, loaded only when this runtime is chosen."""

    name: ClassVar[str] = "torchscript"
    file: ClassVar[str] = "model.torchscript.pt"
    devices: ClassVar[tuple[Device, ...]] = ("cpu", "cuda")
    deviation: ClassVar[float] = 0

    def __init__(self, folder: Path, device: Device, load: Load) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise DeviceUnavailable(
                "device 'cuda' was demanded but PyTorch sees no GPU; install a driver, or choose device 'cpu'"
            )
        self.device: Device = device
        self.execution_provider = f"torch-{device}"
        torch.set_num_threads(load.threads)
        # TF32 would round to 10 bits inside convolutions and break parity.
        torch.backends.cudnn.allow_tf32 = False
        try:
            with warnings.catch_warnings():
                # torch.jit is deprecated since 2.11 but still loads; ONNX is the main artifact.
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", FutureWarning)
                module = torch.jit.load(folder / self.file, map_location=device)  # type: ignore[no-untyped-call]
            self._module = module.eval()
        except RuntimeError as error:
            raise ManifestInvalid(
                f"{folder / self.file} cannot be loaded by PyTorch {torch.__version__} ({error}); "
                "export it again with this version"
            ) from error

    def run(self, crops: Crop) -> Logits:
        """uint8 (batch, height, width, 3) → float32 (batch, classes)."""
        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(crops)).to(self.device)
            logits: Logits = self._module(images).float().cpu().numpy()
        return logits

    def trim(self) -> None:
        """Nothing to do: PyTorch's CPU allocator keeps nothing."""
