"""A run's curves and pictures for TensorBoard, where they are asked for: event files in RUN/tensorboard."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from training.history import Epoch
from training.steps import STEPS, Step, read_steps

TENSORBOARD = "tensorboard"


class Board:
    """Writes while the `with` block runs. Everything is told by step, also what is measured once an epoch.

    A resumed run hides what a killed one wrote of an unfinished epoch (TensorBoard's `purge_step`); one that had no
    board before begins it with the epochs so far, as steps.csv and the history have them.
    """

    def __init__(self, folder: Path, history: Sequence[Epoch]) -> None:
        begun = (folder / TENSORBOARD).is_dir()
        steps = read_steps(folder / STEPS)
        self._writer = _writer(folder, purge_step=len(steps) + 1)
        self._step = len(steps) if begun else 0
        for row in () if begun else history:
            self.epoch([step for step in steps if step.epoch == row.epoch], row)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def epoch(self, steps: Sequence[Step], row: Epoch) -> None:
        """An epoch's steps (none where a solver trained), and what its row in the history says."""
        for step in steps:
            for tag, value in (
                ("step/loss", step.loss),
                ("rate/head", step.head_rate),
                ("rate/backbone", step.backbone_rate),
            ):
                if value is not None:
                    self._writer.add_scalar(tag, value, step.step)
            self._step = step.step
        for what in ("loss", "accuracy"):
            for split in ("train", "validation"):
                self._writer.add_scalar(f"{what}/{split}", getattr(row, f"{split}_{what}"), self._step)
        self._writer.add_scalar("photos per second", row.images_per_second, self._step)
        self._writer.flush()


def add_pictures(folder: Path) -> None:
    """The pictures of a finished run, at its last step."""
    steps = read_steps(folder / STEPS)
    writer = _writer(folder)
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            writer.add_image(path.stem, np.asarray(image.convert("RGB")), len(steps), dataformats="HWC")
    writer.close()


def _writer(folder: Path, **options: Any) -> Any:
    # Imported here: it takes seconds, and few runs ask for it.
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / TENSORBOARD), **options)
