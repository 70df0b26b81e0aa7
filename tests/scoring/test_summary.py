"""What a run came to, as text, JSON and an exit status."""

import json

import pytest

from inference.errors import ImageEmpty, ImageTruncated
from inference.prediction import Candidate, Prediction
from scoring.rows import Origin, Row
from scoring.summary import Tally

ROW = Row(0, "", Origin("", "", "", "", ""))


def answered(label: str, *, abstained: bool = False) -> Row:
    return ROW.answered(Prediction(label, 0.9, abstained, (Candidate(label, 0, 0.9),)))


def tally(*rows: Row) -> Tally:
    made = Tally()
    for row in rows:
        made.add(row)
    return made


FULL = tally(
    answered("dogs"),
    answered("cats", abstained=True),
    answered("cats"),
    ROW.failed(ImageEmpty("")),
    ROW.failed(ImageTruncated("")),
    ROW.failed(ImageTruncated("")),
)


def test_counts() -> None:
    summary = FULL.summary(seconds=2, interrupted=False, place="out.csv")
    assert (summary.rows, summary.answered, summary.failed, summary.abstained) == (6, 3, 3, 1)
    assert list(summary.labels.items()) == [("cats", 2), ("dogs", 1)]
    assert list(summary.errors.items()) == [("image_truncated", 2), ("image_empty", 1)]
    assert (FULL.rows, FULL.failed) == (6, 3)


def test_text() -> None:
    assert str(FULL.summary(seconds=2, interrupted=False, place="out.csv")).splitlines() == [
        "6 rows in 2.0 s (3.0/s) → out.csv",
        "answered: 3",
        "          2  cats",
        "          1  dogs",
        "  not sure of 1 of them (abstained)",
        "failed: 3",
        "          2  image_truncated",
        "          1  image_empty",
    ]
    assert str(FULL.summary(seconds=2, interrupted=True, place="out.csv.part")).startswith("Interrupted: 6 rows in")
    assert "failed" not in str(tally(answered("cats")).summary(seconds=0, interrupted=False, place="x"))


def test_json() -> None:
    summary = FULL.summary(seconds=2, interrupted=False, place="out.csv")
    assert json.loads(summary.to_json()) == {
        "rows": 6,
        "answered": 3,
        "failed": 3,
        "abstained": 1,
        "labels": {"cats": 2, "dogs": 1},
        "errors": {"image_truncated": 2, "image_empty": 1},
        "seconds": 2,
        "interrupted": False,
        "place": "out.csv",
        "exit_status": 1,
    }


@pytest.mark.parametrize(
    ("rows", "interrupted", "status"),
    [
        ([answered("cats")], False, 0),
        ([answered("cats"), ROW.failed(ImageEmpty(""))], False, 1),
        ([ROW.failed(ImageEmpty(""))], False, 1),
        ([], False, 3),
        ([answered("cats")], True, 130),
    ],
)
def test_exit_status(rows: list[Row], interrupted: bool, status: int) -> None:
    assert tally(*rows).summary(seconds=1, interrupted=interrupted, place="").exit_status == status
