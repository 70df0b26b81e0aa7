"""What a runtime is."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from inference.prediction import Logits
from inference.preprocessing import Crop

Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]
"""What a user may ask for; `auto` is CUDA where it works."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a runtime has to be ready for: `streams` calls at a time, with `threads` for each."""

    threads: int = 1
    streams: int = 1


class Runtime(Protocol):
    """A loaded model: crops in, logits out.

    `file` is the artifact's file that the runtime reads, `devices` are those that it knows. `deviation` is how far
    logits may be from the golden ones beyond the artifact's tolerance, as a share of the golden logits' span: 0 but
    for reduced precision. The golden logits are PyTorch's, or for the int8 file its own. `execution_provider` names
    what really computes, checked after loading. `run` may be called from several threads at once.
    """

    name: ClassVar[str]
    file: ClassVar[str]
    devices: ClassVar[tuple[Device, ...]]
    deviation: ClassVar[float]
    device: Device
    execution_provider: str

    def __init__(self, folder: Path, device: Device, load: Load) -> None:
        """Load `folder / file`. Raises DeviceUnavailable, or ManifestInvalid for a bad file."""

    def run(self, crops: Crop) -> Logits:
        """uint8 (batch, height, width, 3) → float32 (batch, classes)."""

    def trim(self) -> None:
        """Give back memory that larger batches than those to come have taken, where the runtime keeps it."""
