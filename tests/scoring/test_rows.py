"""A row has one shape, whoever fills it."""

import json

import pytest

from inference.errors import ImageEmpty
from inference.prediction import Candidate, Prediction
from scoring.rows import COLUMNS, Origin, Row, Settings, printable

ORIGIN = Origin("colours", "1", "sha256:0", "onnx", "cpu")
ROW = Row(3, "a.jpg", ORIGIN, width=40, height=30)


def test_columns() -> None:
    assert COLUMNS == (
        "id", "path", "label", "probability", "abstained", "top_k", "error_code", "error_detail", "width", "height",
        "model_name", "model_version", "model_digest", "runtime", "device",
    )  # fmt: skip

    assert Settings().columns == COLUMNS
    assert Settings(logits=True, content_hash=True).columns == (*COLUMNS, "content_hash", "logits")


def test_answered() -> None:
    row = ROW.answered(Prediction("red", 0.75, False, (Candidate("red", 0, 0.75), Candidate("blue", 2, 0.25))))
    assert row.flat() == {
        "id": 3,
        "path": "a.jpg",
        "label": "red",
        "probability": 0.75,
        "abstained": False,
        "top_k": [
            {"label": "red", "class_index": 0, "probability": 0.75},
            {"label": "blue", "class_index": 2, "probability": 0.25},
        ],
        "error_code": None,
        "error_detail": None,
        "width": 40,
        "height": 30,
        "model_name": "colours",
        "model_version": "1",
        "model_digest": "sha256:0",
        "runtime": "onnx",
        "device": "cpu",
        "content_hash": None,
        "logits": None,
        "features": None,
    }


def test_failed() -> None:
    row = ROW.failed(ImageEmpty("no bytes; send some"))
    assert (row.error_code, row.error_detail, row.label, row.top_k) == ("image_empty", "no bytes; send some", None, ())
    assert row.flat()["top_k"] is None
    assert (row.width, row.height) == (40, 30)


def test_failed_unexpectedly() -> None:
    row = ROW.failed(KeyError("x"))
    assert (row.error_code, row.error_detail) == ("internal", "KeyError: 'x'; please report it with the picture")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本 \n", "plain é 日本 \n"),
        ("caf\udce9", "caf\\xe9"),
        ("\udcff\udcfe", "\\xff\\xfe"),
        ("\ud800", "\\ud800"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    json.dumps(printable(text), ensure_ascii=False).encode()
