"""Logits to an answer: calibrated probabilities, the top k, and abstention."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.errors import ParameterInvalid
from inference.manifest import Calibration

Logits = NDArray[np.float32]
"""float32, (batch, classes)."""

DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """One class and its probability, 0…1."""

    label: str
    class_index: int
    probability: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one picture: `top_k` is sorted, most probable first, and its first entry is the label.

    `abstained` says that the probability is below the artifact's threshold: "not sure".
    """

    label: str
    probability: float
    abstained: bool
    top_k: tuple[Candidate, ...]


def probabilities(logits: Logits, temperature: float) -> NDArray[np.float64]:
    """softmax(logits / temperature) per row, float64 (batch, classes); each row sums to 1.

    Temperature scaling after Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    scaled = logits.astype(np.float64) / temperature
    # `reduce`: the methods max and sum take several times as long on a single row.
    exponentials = np.exp(scaled - np.maximum.reduce(scaled, axis=1, keepdims=True))
    normalised: NDArray[np.float64] = exponentials / np.add.reduce(exponentials, axis=1, keepdims=True)
    return normalised


def predictions(
    logits: Logits, labels: tuple[str, ...], calibration: Calibration, top_k: int = DEFAULT_TOP_K
) -> list[Prediction]:
    """One `Prediction` per row of `logits`, in order. `top_k` beyond the number of classes means all of them.

    Equal probabilities are ordered by class index. Raises ParameterInvalid when `top_k` is below 1.
    """
    if top_k < 1:
        raise ParameterInvalid(f"top_k is {top_k}, it must be 1 or more")
    answers = []
    for row in probabilities(logits, calibration.temperature):
        order = (-row).argsort(kind="stable")[:top_k]
        best_first = zip(order.tolist(), row[order].tolist(), strict=True)
        candidates = tuple(Candidate(labels[index], index, probability) for index, probability in best_first)
        best = candidates[0]
        abstained = best.probability < calibration.threshold
        answers.append(Prediction(best.label, best.probability, abstained, candidates))
    return answers
