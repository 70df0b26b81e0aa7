import numpy as np
import pytest
from sklearn.metrics import log_loss

from evaluation.figures import class_figures, wilson_interval
from inference.manifest import Calibration
from training.calibrate import COLDEST, HOTTEST, calibrate, fit_temperature, fit_threshold
from training.evaluate import Outcome, metrics_of, negative_log_likelihood


def synthetic(count: int = 4000, classes: int = 4, sharpness: float = 2.5) -> Outcome:
    """Logits that are `sharpness` times too large for the labels drawn from them."""
    random = np.random.default_rng(0)
    honest = random.normal(0, 2, (count, classes))
    shares = np.exp(honest) / np.exp(honest).sum(axis=1, keepdims=True)
    truth = np.array([random.choice(classes, p=row) for row in shares])
    return Outcome("validation", (honest * sharpness).astype(np.float32), truth)


def test_temperature_undoes_overconfidence() -> None:
    outcome = synthetic()
    temperature = fit_temperature(outcome.logits, outcome.truth)
    assert temperature == pytest.approx(2.5, rel=0.05)
    best = negative_log_likelihood(outcome.logits, outcome.truth, temperature)
    for other in (temperature * 0.97, temperature * 1.03, 1.0):
        assert negative_log_likelihood(outcome.logits, outcome.truth, other) > best


def test_calibration_reports_before_and_after() -> None:
    calibration = calibrate(synthetic(), target_accuracy=0.9)
    assert calibration.ece_before is not None
    assert calibration.ece_after is not None
    assert calibration.ece_after < 0.03 < 0.1 < calibration.ece_before
    assert calibration.accuracy_when_answering is not None
    assert calibration.accuracy_when_answering >= 0.9
    assert 0 < (calibration.coverage or 0) < 1
    assert (calibration.split, calibration.images) == ("validation", 4000)


def test_a_few_photos_that_are_all_right_make_nothing_certain() -> None:
    def fitted(photos: int, margin: float) -> float:
        truth = np.arange(photos) % 2
        return fit_temperature(margin * np.eye(2, dtype=np.float32)[truth], truth)

    assert 0.5 < fitted(28, 5.0) < 1
    assert COLDEST < fitted(2800, 5.0) < fitted(280, 5.0) < fitted(28, 5.0)
    assert 1 < fitted(28, -1.0) < HOTTEST
    assert fitted(1_000_000, -1.0) == pytest.approx(HOTTEST, rel=1e-3)


def test_nll_is_scikit_learns() -> None:
    outcome = synthetic(200)
    expected = log_loss(outcome.truth, outcome.probabilities(1.7), labels=range(4))
    assert negative_log_likelihood(outcome.logits, outcome.truth, 1.7) == pytest.approx(expected)


def sure(*rows: tuple[float, bool]) -> tuple[np.ndarray, np.ndarray]:
    """Two-class probabilities with the given confidences, and truths that make them right or wrong."""
    predicted = np.array([[share, 1 - share] for share, _ in rows])
    return predicted, np.array([0 if right else 1 for _, right in rows])


def test_threshold_answers_as_much_as_the_target_allows() -> None:
    predicted, truth = sure((0.99, True), (0.9, True), (0.8, False), (0.7, True), (0.6, True), (0.55, False))
    threshold, coverage, accuracy = fit_threshold(predicted, truth, 0.8)
    assert 0.55 < threshold < 0.6
    assert (coverage, accuracy) == (pytest.approx(5 / 6), 0.8)
    threshold, coverage, accuracy = fit_threshold(predicted, truth, 0.9)
    assert 0.8 < threshold < 0.9
    assert (coverage, accuracy) == (pytest.approx(1 / 3), 1.0)


def test_threshold_where_all_or_nothing_reaches_the_target() -> None:
    assert fit_threshold(*sure((0.9, True), (0.8, True)), 0.99) == (0.0, 1.0, 1.0)
    assert fit_threshold(*sure((0.9, False), (0.8, True)), 0.99) == (0.0, 1.0, 0.5)


def test_equal_confidences_are_answered_together() -> None:
    threshold, coverage, _ = fit_threshold(*sure((0.9, True), (0.8, True), (0.8, False), (0.6, False)), 0.9)
    assert coverage == 0.25
    assert threshold == pytest.approx(0.85)


def test_metrics_of_a_small_table() -> None:
    logits = np.array([[2, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2], [0, 2, 0]], np.float32)
    outcome = Outcome("test", logits, np.array([0, 1, 1, 2, 1]))
    metrics = metrics_of(outcome, Calibration())
    assert metrics.accuracy == 0.8
    assert (metrics.accuracy_low, metrics.accuracy_high) == wilson_interval(4, 5)
    assert metrics.macro_f1 == pytest.approx((2 / 3 + 0.8 + 1) / 3)
    assert outcome.confusion.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 1]]
    first, second, third = class_figures(outcome.confusion, ("a", "b", "c"))
    assert (first.precision, first.recall) == (0.5, 1.0)
    assert (second.precision, second.recall, second.images) == (1.0, pytest.approx(2 / 3), 3)
    assert (third.label, third.f1) == ("c", 1.0)
