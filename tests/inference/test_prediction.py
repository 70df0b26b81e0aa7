"""Logits to answers, against closed forms."""

import math

import numpy as np
import pytest

from inference.errors import ParameterInvalid
from inference.manifest import Calibration
from inference.prediction import DEFAULT_TOP_K, Logits, predictions, probabilities

LABELS = ("red", "green", "blue")


def logits(*rows: tuple[float, ...]) -> Logits:
    return np.array(rows, dtype=np.float32)


def test_softmax_of_two_classes_is_the_logistic_function() -> None:
    for distance in (-8.0, -1.5, 0.0, 0.25, 3.0):
        found = probabilities(logits((0.0, distance)), temperature=1)[0, 1]
        assert found == pytest.approx(1 / (1 + math.exp(-distance)), abs=1e-12)


def test_softmax_undoes_the_logarithm() -> None:
    found = probabilities(np.log(logits((1, 2, 5), (8, 1, 1))), temperature=1)
    assert found == pytest.approx(np.array([[0.125, 0.25, 0.625], [0.8, 0.1, 0.1]]), abs=1e-7)
    assert found.dtype == np.float64


def test_temperature_takes_roots() -> None:
    # softmax(log p / T) is proportional to p^(1/T).
    found = probabilities(np.log(logits((1, 4, 16))), temperature=2)
    assert found == pytest.approx(np.array([[1 / 7, 2 / 7, 4 / 7]]), abs=1e-7)


def test_temperature_never_changes_the_order() -> None:
    row = logits((0.3, 2.0, -1.0))
    orders = [np.argsort(probabilities(row, temperature)[0]).tolist() for temperature in (0.05, 1, 20)]
    assert orders == [[2, 0, 1]] * 3


def test_large_logits_neither_overflow_nor_vanish() -> None:
    found = probabilities(logits((3e38, -3e38, 0), (1e4, 1e4, 1e4)), temperature=0.5)
    assert np.array_equal(found[0], [1, 0, 0])
    assert found[1] == pytest.approx(np.full(3, 1 / 3), abs=1e-15)
    assert found.sum(axis=1) == pytest.approx(np.ones(2), abs=1e-15)


def test_answer() -> None:
    (answer,) = predictions(np.log(logits((1, 2, 5))), LABELS, Calibration(threshold=0.6), top_k=2)
    assert (answer.label, answer.abstained) == ("blue", False)
    assert [(each.label, each.class_index) for each in answer.top_k] == [("blue", 2), ("green", 1)]
    assert answer.probability == answer.top_k[0].probability == pytest.approx(0.625)


def test_rows_are_answered_in_order_and_alone() -> None:
    rows = logits((1, 0, 0), (0, 1, 0), (0, 0, 1))
    together = predictions(rows, LABELS, Calibration())
    assert [each.label for each in together] == ["red", "green", "blue"]
    assert together == [predictions(row[None], LABELS, Calibration())[0] for row in rows]
    assert predictions(rows[:0], LABELS, Calibration()) == []


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (3, 3), (4, 3), (10**9, 3), (DEFAULT_TOP_K, 3)])
def test_top_k_is_at_most_every_class(top_k: int, count: int) -> None:
    (answer,) = predictions(logits((1, 2, 3)), LABELS, Calibration(), top_k)
    assert len(answer.top_k) == count


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_below_one_is_refused(top_k: int) -> None:
    with pytest.raises(ParameterInvalid, match=f"top_k is {top_k}, it must be 1 or more"):
        predictions(logits((1, 2, 3)), LABELS, Calibration(), top_k)


def test_ties_are_ordered_by_class() -> None:
    (answer,) = predictions(logits((1, 2, 2)), LABELS, Calibration())
    assert [each.class_index for each in answer.top_k] == [1, 2, 0]


def test_abstains_only_below_the_threshold() -> None:
    half = logits((0, 0))
    labels = ("cats", "dogs")
    assert predictions(half, labels, Calibration(threshold=0.5))[0].abstained is False
    assert predictions(half, labels, Calibration(threshold=0.5000001))[0].abstained is True
    assert predictions(half, labels, Calibration(threshold=0))[0].abstained is False
    hot = Calibration(threshold=0.7, temperature=4)
    assert predictions(logits((0, 2)), labels, hot)[0].abstained is True
    assert predictions(logits((0, 2)), labels, hot.model_copy(update={"temperature": 1}))[0].abstained is False
