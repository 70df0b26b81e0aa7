"""A run folder, opened: what was trained, how well it does, and the network itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inference.manifest import Calibration, Metrics, Provenance
from training.recipe import Recipe
from training.splits import Item

if TYPE_CHECKING:
    from training.backbones import Normalized


@dataclass(frozen=True)
class Run:
    """A finished run. `Run.open(folder)` reads one; nothing in it changes afterwards.

    `labels` are the class names in index order, `metrics` those of the test split (None when the recipe has none),
    `calibration` was fitted on validation, `data_root` is where the photos were.
    """

    folder: Path
    recipe: Recipe
    labels: tuple[str, ...]
    calibration: Calibration
    metrics: Metrics | None
    provenance: Provenance
    data_root: Path

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read a run folder. Raises RunInvalid: missing, unfinished, damaged, or of another format."""
        raise NotImplementedError

    def module(self) -> "Normalized":
        """The kept weights on the CPU in evaluation mode: uint8 (batch, crop, crop, 3) → float32 (batch, classes)."""
        raise NotImplementedError

    def items(self, split: str) -> tuple[Item, ...]:
        """The members of `train`, `validation` or `test`, in the order of splits.csv."""
        raise NotImplementedError

    def photos(self, split: str, limit: int | None = None, data_root: Path | None = None) -> list[Path]:
        """Paths of a split's photos, spread evenly over the split when limited.

        Raises DataInvalid when the data root, or a photo in it, is no longer there.
        """
        raise NotImplementedError
