"""The arithmetic of figures, against published values and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from evaluation.figures import class_figures, confusion, expected_calibration_error, f1_scores, wilson_interval


# Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_against_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_at_the_ends() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(10, 10)[1] == pytest.approx(1)
    assert wilson_interval(10, 10)[0] == pytest.approx(1 - wilson_interval(0, 10)[1])


@pytest.mark.parametrize("classes", [2, 5])
def test_figures_per_class_are_scikit_learns(classes: int) -> None:
    random = np.random.default_rng(classes)
    # The last class is never predicted, the first never true.
    truth, predicted = random.integers(1, classes, 300), random.integers(0, classes - 1, 300)
    counts = confusion(truth, predicted, classes)
    assert counts.tolist() == confusion_matrix(truth, predicted, labels=range(classes)).tolist()
    expected = precision_recall_fscore_support(truth, predicted, labels=range(classes), zero_division=0)
    found = class_figures(counts, [str(index) for index in range(classes)])
    columns = [[getattr(each, name) for each in found] for name in ("precision", "recall", "f1", "images")]
    np.testing.assert_allclose(columns, expected)
    np.testing.assert_allclose(f1_scores(counts), expected[2])


def test_ece_by_hand() -> None:
    confidence, right = np.array([0.95, 0.95, 0.6, 0.6]), np.array([True, False, True, True])
    # Two in the bin of 0.95 with accuracy 0.5, two in the bin of 0.6 with accuracy 1.
    assert expected_calibration_error(confidence, right) == pytest.approx(0.5 * 0.45 + 0.5 * 0.4)


def test_certain_and_right_is_calibrated() -> None:
    assert expected_calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0
