"""How good answers are: accuracy with its interval, figures per class, and whether probabilities mean what they say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Probabilities = NDArray[np.float64]
Flags = NDArray[np.bool_]

ECE_BINS = 15
Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class ClassFigures:
    """One class against the rest."""

    label: str
    precision: float
    recall: float
    f1: float
    images: int


def confusion(truth: Indices, predicted: Indices, classes: int) -> Indices:
    """Counts, int64 (classes, classes): row the true class, column the predicted one."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts


def f1_scores(counts: Indices) -> Probabilities:
    """F1 of every class, float64 (classes,), from a confusion matrix; their mean is macro F1."""
    scores: Probabilities = 2 * counts.diagonal() / np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)
    return scores


def class_figures(counts: Indices, labels: Sequence[str]) -> list[ClassFigures]:
    """Precision, recall and F1 per class from a confusion matrix; a figure without any photo to count is 0."""
    right, asked, given = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    precision = right / np.maximum(given, 1)
    recall = right / np.maximum(asked, 1)
    columns = (precision.tolist(), recall.tolist(), f1_scores(counts).tolist(), asked.tolist())
    return [ClassFigures(*row) for row in zip(labels, *columns, strict=True)]


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Bounds on a proportion (Wilson 1927, "Probable inference", JASA 22:209-212, without continuity correction)."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    margin = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)


@dataclass(frozen=True)
class Reliability:
    """Per confidence bin: number of photos, mean confidence and accuracy (0 where a bin is empty)."""

    counts: Indices
    confidence: Probabilities
    accuracy: Probabilities


def reliability(confidence: Probabilities, right: Flags, bins: int = ECE_BINS) -> Reliability:
    """Answers in `bins` equal intervals of confidence, each closed above, as Guo et al. 2017 draw them."""
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = np.maximum(counts, 1)
    return Reliability(
        counts,
        np.bincount(place, weights=confidence, minlength=bins) / filled,
        np.bincount(place, weights=right, minlength=bins) / filled,
    )


def expected_calibration_error(confidence: Probabilities, right: Flags, bins: int = ECE_BINS) -> float:
    """Mean |accuracy - confidence| over bins, weighted by their counts (Naeini et al. 2015; Guo et al. 2017, eq. 3)."""
    parts = reliability(confidence, right, bins)
    return float(np.sum(parts.counts * np.abs(parts.accuracy - parts.confidence)) / max(len(right), 1))
