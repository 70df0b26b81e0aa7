"""What a runtime is."""

from pathlib import Path
from typing import ClassVar, Literal, Protocol

from inference.prediction import Logits
from inference.preprocessing import Crop

Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]
"""What a user may ask for; `auto` is CUDA where it works."""


class Runtime(Protocol):
    """A loaded model: crops in, logits out.

    `file` is the artifact's file that the runtime reads. `execution_provider` names what really computes, checked
    after loading. `run` may be called from several threads at once.
    """

    name: ClassVar[str]
    file: ClassVar[str]
    device: Device
    execution_provider: str

    def __init__(self, folder: Path, device: Device, threads: int) -> None:
        """Load `folder / file`. Raises DeviceUnavailable when `device` cannot be had, RuntimeMissing without a file."""

    def run(self, crops: Crop) -> Logits:
        """uint8 (batch, height, width, 3) → float32 (batch, classes)."""

    def trim(self) -> None:
        """Give back memory that larger batches than those to come have taken, where the runtime keeps it."""
