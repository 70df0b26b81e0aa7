"""A look inside a finished run's network: Grad-CAM of mistakes and right answers, the residual report of a photo."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.figures import Indices, Probabilities
from training import pictures
from training.backbones import Normalized
from training.dataset import Photos
from training.evaluate import Outcome
from training.gradcam import heat_maps
from training.progress import say
from training.residuals import as_rows, residuals

GRADCAM_PNG, RESIDUALS_PNG, RESIDUALS_CSV = "gradcam.png", "residuals.png", "residuals.csv"

_WRONG, _RIGHT = 6, 12
_AT_ONCE = 4  # photos whose gradients are in memory together


@dataclass(frozen=True)
class Inspection:
    """What is looked at: the kept module and a split with its calibrated probabilities, float64 (photos, classes)."""

    folder: Path
    module: Normalized
    photos: Photos
    outcome: Outcome
    probabilities: Probabilities

    def draw(self) -> None:
        """gradcam.png, residuals.png and residuals.csv; what cannot be drawn is said, and lost alone."""
        with spared(GRADCAM_PNG):
            self._draw_gradcam()
        with spared(RESIDUALS_PNG):
            self._draw_residuals()

    def _draw_gradcam(self) -> None:
        chosen = pictures.worst_mistakes(self.probabilities, self.outcome.truth, _WRONG)
        chosen += right_answers(self.probabilities, self.outcome.truth, _RIGHT)
        items = [self.photos.splits[self.outcome.split][index] for index in chosen]
        crops, answers = [self.photos.crop(item) for item in items], self.outcome.predicted[chosen].tolist()
        heats = [
            heat
            for start in range(0, len(crops), _AT_ONCE)
            for heat in heat_maps(self.module, crops[start : start + _AT_ONCE], answers[start : start + _AT_ONCE])
        ]
        labels = self.photos.labels
        looks = [
            pictures.Look(crop, heat, labels[item.label], labels[answer], float(self.probabilities[index, answer]))
            for crop, heat, item, answer, index in zip(crops, heats, items, answers, chosen, strict=True)
        ]
        title = (
            f"Grad-CAM on {self.outcome.split}: bright is what speaks for the answer (red: wrong, true label → answer)"
        )
        pictures.draw_looks(self.folder / GRADCAM_PNG, looks, title)

    def _draw_residuals(self) -> None:
        item = self.photos.splits[self.outcome.split][0]
        report = residuals(self.module, self.photos.crop(item))
        if not report:
            return
        with (self.folder / RESIDUALS_CSV).open("w", newline="", encoding="utf-8") as file:
            rows = as_rows(report)
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        pictures.draw_residuals(self.folder / RESIDUALS_PNG, report, item.path)


def right_answers(predicted: Probabilities, truth: Indices, most: int) -> list[int]:
    """Positions of right answers, of every class in turn its surest and its least sure, at most `most`."""
    right = predicted.argmax(axis=1) == truth
    first, second = [], []
    for label in range(predicted.shape[1]):
        order = sorted(np.flatnonzero(right & (truth == label)), key=lambda index: -predicted[index].max())
        first += order[:1]
        second += order[1:][-1:]
    return sorted((int(index) for index in (first + second)[:most]), key=lambda index: int(truth[index]))


@contextmanager
def spared(what: str) -> Iterator[None]:
    """An addition to a run that must not cost the run: its failure is said, and the work goes on."""
    try:
        yield
    # Whatever a drawing library or an unusual network comes up with, the figures are worth more.
    except Exception as error:  # noqa: BLE001
        say(f"{what} could not be made ({type(error).__name__}: {error}); the run is whole without it")
