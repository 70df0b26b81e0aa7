"""What a run came to, as text, JSON and an exit status."""

import json
from dataclasses import replace

import pytest

from inference.errors import ImageEmpty, ImageTruncated
from inference.prediction import Candidate, Prediction
from scoring.journal import Part
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
        "failed (50.0%): 3",
        "          2  image_truncated",
        "          1  image_empty",
    ]
    interrupted = FULL.summary(seconds=2, interrupted=True, place="out.csv.parts", resumed=2)
    assert str(interrupted).splitlines()[0] == (
        "Interrupted: 4 rows in 2.0 s (2.0/s) → out.csv.parts, after 2 of earlier runs; run the same command again to "
        "go on"
    )
    on_stdout = FULL.summary(seconds=2, interrupted=True, place="standard output", resumable=False)
    assert str(on_stdout).splitlines()[0] == "Interrupted: 6 rows in 2.0 s (3.0/s) → standard output"
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
        "resumed": 0,
        "resumable": True,
        "tolerated": 0.0,
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


@pytest.mark.parametrize(("tolerated", "status"), [(0.0, 1), (0.49, 1), (0.5, 0), (1.0, 0)])
def test_errors_may_be_tolerated(tolerated: float, status: int) -> None:
    summary = replace(FULL.summary(seconds=1, interrupted=False, place=""), tolerated=tolerated)
    assert summary.exit_status == status


def test_parts_add_up() -> None:
    whole = tally(answered("dogs"), ROW.failed(ImageEmpty("")))
    whole.add_part(Part("", "", rows=3, abstained=1, labels={"dogs": 2}, errors={"image_empty": 1}))
    summary = whole.summary(seconds=1, interrupted=False, place="")
    assert (summary.rows, summary.answered, summary.failed, summary.abstained) == (5, 3, 2, 1)
    assert summary.labels == {"dogs": 3}
