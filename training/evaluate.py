"""How good a classifier is on a split: figures with intervals, from logits alone."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from inference.manifest import Calibration, Metrics
from inference.prediction import Logits, probabilities
from training.backbones import Normalized
from training.compute import Compute
from training.dataset import Photos
from training.progress import Progress

Indices = NDArray[np.int64]
Probabilities = NDArray[np.float64]

ECE_BINS = 15
Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Outcome:
    """Logits, float32 (photos, classes), and true class indices, int64 (photos,), of a split in its order."""

    split: str
    logits: Logits
    truth: Indices

    def probabilities(self, temperature: float = 1.0) -> Probabilities:
        """softmax(logits / temperature), float64 (photos, classes)."""
        return probabilities(self.logits, temperature)

    @property
    def predicted(self) -> Indices:
        """The most probable class of each photo."""
        best: Indices = self.logits.argmax(axis=1)
        return best

    @property
    def correct(self) -> int:
        """How many photos were classified rightly."""
        return int(np.sum(self.predicted == self.truth))


@dataclass(frozen=True)
class ClassFigures:
    """One class against the rest."""

    label: str
    precision: float
    recall: float
    f1: float
    images: int


@torch.inference_mode()
def infer(module: Normalized, photos: Photos, split: str, compute: Compute, batch_size: int = 64) -> Outcome:
    """Run a split through the module in float32, as the exported artifact will; the module is left in eval mode."""
    module.eval().to(compute.device)
    items = photos.splits[split]
    logits = []
    with Progress(f"evaluating {split}", len(items)) as progress:
        for images, labels in photos.crops(items, batch_size):
            logits.append(progress.step(module(images.to(compute.device)).float().cpu().numpy(), len(labels)))
    return Outcome(split, np.concatenate(logits), np.array([item.label for item in items]))


def metrics_of(outcome: Outcome, calibration: Calibration) -> Metrics:
    """Accuracy with its 95 % Wilson interval, macro F1 (classes weigh equally) and calibrated ECE."""
    images = len(outcome.truth)
    low, high = wilson_interval(outcome.correct, images)
    classes = outcome.logits.shape[1]
    *_, f1, _ = precision_recall_fscore_support(
        outcome.truth, outcome.predicted, labels=range(classes), average="macro", zero_division=0
    )
    return Metrics(
        split=outcome.split,
        images=images,
        accuracy=outcome.correct / images,
        accuracy_low=low,
        accuracy_high=high,
        macro_f1=float(f1),
        ece=expected_calibration_error(outcome.probabilities(calibration.temperature), outcome.truth),
    )


def class_figures(outcome: Outcome, labels: tuple[str, ...]) -> list[ClassFigures]:
    """Precision, recall and F1 per class (scikit-learn); a class that is never predicted has precision 0."""
    columns = precision_recall_fscore_support(
        outcome.truth, outcome.predicted, labels=range(len(labels)), zero_division=0
    )
    return [
        ClassFigures(label, float(precision), float(recall), float(f1), int(images))
        for label, precision, recall, f1, images in zip(labels, *columns, strict=True)
    ]


def confusion(outcome: Outcome) -> Indices:
    """Counts, int64 (classes, classes): row the true class, column the predicted one."""
    matrix: Indices = confusion_matrix(outcome.truth, outcome.predicted, labels=range(outcome.logits.shape[1]))
    return matrix


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Bounds on a proportion (Wilson 1927, "Probable inference", JASA 22:209-212, without continuity correction)."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    margin = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)


def negative_log_likelihood(logits: Logits, truth: Indices, temperature: float = 1.0) -> float:
    """Mean of -log softmax(logits / temperature) at the true class, in nats."""
    scaled = logits.astype(np.float64) / temperature
    top = scaled.max(axis=1)
    normaliser = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float(np.mean(normaliser - scaled[np.arange(len(truth)), truth]))


@dataclass(frozen=True)
class Reliability:
    """Per confidence bin: number of photos, mean confidence and accuracy (0 where a bin is empty)."""

    counts: Indices
    confidence: Probabilities
    accuracy: Probabilities


def reliability(predicted: Probabilities, truth: Indices, bins: int = ECE_BINS) -> Reliability:
    """Predictions in `bins` equal intervals of confidence, each closed above, as Guo et al. 2017 draw them."""
    confidence = predicted.max(axis=1)
    right = predicted.argmax(axis=1) == truth
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = np.maximum(counts, 1)
    return Reliability(
        counts,
        np.bincount(place, weights=confidence, minlength=bins) / filled,
        np.bincount(place, weights=right, minlength=bins) / filled,
    )


def expected_calibration_error(predicted: Probabilities, truth: Indices, bins: int = ECE_BINS) -> float:
    """Mean |accuracy - confidence| over bins, weighted by their counts (Naeini et al. 2015; Guo et al. 2017, eq. 3)."""
    parts = reliability(predicted, truth, bins)
    return float(np.sum(parts.counts * np.abs(parts.accuracy - parts.confidence)) / max(len(truth), 1))
