"""Probabilities that mean what they say: one temperature, and the confidence below which to abstain."""

import math

import numpy as np

from evaluation.figures import Indices, Probabilities, expected_calibration_error
from inference.manifest import Calibration
from inference.prediction import Logits, probabilities
from training.evaluate import Outcome, sureness

COLDEST, HOTTEST = 0.05, 20.0
"""Limits between which the temperature is looked for."""

DOUBT = 1.0
"""Standard deviation of log(temperature) around 0 before a photo was seen. Without it a few photos that are all right
would drive the temperature to 0, and every probability to 0 or 1.
"""


def calibrate(outcome: Outcome, target_accuracy: float) -> Calibration:
    """Fit temperature and threshold on a split (validation: never on the test split)."""
    temperature = fit_temperature(outcome.logits, outcome.truth)
    before, after = outcome.probabilities(), outcome.probabilities(temperature)
    threshold, coverage, accuracy = fit_threshold(after, outcome.truth, target_accuracy)
    return Calibration(
        temperature=temperature,
        threshold=threshold,
        split=outcome.split,
        images=len(outcome.truth),
        ece_before=expected_calibration_error(*sureness(before, outcome.truth)),
        ece_after=expected_calibration_error(*sureness(after, outcome.truth)),
        coverage=coverage,
        accuracy_when_answering=accuracy,
    )


def fit_temperature(logits: Logits, truth: Indices) -> float:
    """The temperature that minimises the negative log-likelihood (Guo et al. 2017, section 4.2) of all photos together,
    plus log(temperature)² / (2 DOUBT²): a log-normal prior, which some hundreds of photos outweigh.

    Bisection on the slope by log(temperature) finds the minimum, or the nearer limit.
    """
    cold, hot = COLDEST, HOTTEST
    for _ in range(60):
        middle = (cold * hot) ** 0.5
        if len(truth) * _slope(logits, truth, middle) / middle > math.log(middle) / DOUBT**2:
            cold = middle
        else:
            hot = middle
    return float((cold * hot) ** 0.5)


def fit_threshold(predicted: Probabilities, truth: Indices, target_accuracy: float) -> tuple[float, float, float]:
    """The smallest threshold whose answered photos reach the target accuracy; with it, coverage and that accuracy.

    0 when every photo can be answered. Where even the surest photo is wrong, nothing reaches the target: the
    threshold is then 0 too, and the accuracy returned says how far off it is.
    """
    confidence, right = sureness(predicted, truth)
    order = np.argsort(-confidence, kind="stable")
    sure, count = confidence[order], np.arange(1, len(truth) + 1)
    accuracy = np.cumsum(right[order]) / count
    # Photos of equal confidence are answered together or not at all.
    cut_here = np.append(sure[:-1] > sure[1:], True)
    reached = np.flatnonzero(cut_here & (accuracy >= target_accuracy))
    if len(reached) == 0 or reached[-1] == len(truth) - 1:
        return 0.0, 1.0, float(accuracy[-1])
    last = int(reached[-1])
    return float((sure[last] + sure[last + 1]) / 2), float(count[last] / len(truth)), float(accuracy[last])


def _slope(logits: Logits, truth: Indices, temperature: float) -> float:
    """Derivative of the loss by 1 / temperature: the expected logit minus the true class's, in the mean."""
    expected = (probabilities(logits, temperature) * logits).sum(axis=1)
    return float(np.mean(expected - logits[np.arange(len(truth)), truth]))
