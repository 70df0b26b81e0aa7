"""The local engine: the classifier's own answers, one row per input, in order, whatever a picture does."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.budget import Budget
from inference.classifier import Classifier
from inference.errors import ImageError, ImageUnreadable, ParameterInvalid, SourceGone
from inference.prediction import Logits
from inference.preprocessing import Crop
from scoring.files import Files
from scoring.local import LocalEngine
from scoring.order import READING_THREADS
from scoring.rows import Row, Settings
from scoring.scorer import CUDA_BATCH, Scorer
from tests.scoring.gauge import Gauge

ENGINES = [{"streams": 1}, {"streams": 2}, {"streams": 5}, {"batch_size": 4}, {"batch_size": 7, "streams": 3}]


def engine(classifier: Classifier, *, streams: int | None = None, batch_size: int | None = None) -> LocalEngine:
    return LocalEngine(Scorer(classifier, batch_size=batch_size), streams=streams)


class Watched(Classifier):
    """A classifier that tells how it is used."""

    def __init__(self, classifier: Classifier, before: Callable[[Crop], None] = lambda _: None) -> None:
        super().__init__(classifier.artifact, classifier.runtime)
        self.batches: list[int] = []
        self._before = before

    def logits(self, crops: Crop) -> Logits:
        self.batches.append(len(crops))
        self._before(crops)
        return super().logits(crops)


def expected(classifier: Classifier, path: Path) -> tuple[Any, ...]:
    (outcome,) = classifier.classify([path.read_bytes()])
    if isinstance(outcome, ImageError):
        return None, None, None, (), outcome.code, outcome.detail
    return outcome.label, outcome.probability, outcome.abstained, outcome.top_k, None, None


def answer(row: Row) -> tuple[Any, ...]:
    return row.label, row.probability, row.abstained, row.top_k, row.error_code, row.error_detail


@pytest.mark.parametrize("options", ENGINES, ids=str)
def test_rows_are_the_classifiers_answers(classifier: Classifier, photos: Path, options: dict[str, int]) -> None:
    rows = list(engine(classifier, **options).rows(Files([photos])))
    files = sorted(photos.iterdir())
    assert [row.path for row in rows] == list(map(str, files))
    assert [row.id for row in rows] == list(range(30))
    # Exactly, not nearly: labels, probabilities and messages.
    assert [answer(row) for row in rows] == [expected(classifier, path) for path in files]
    assert sum(row.error_code == "image_truncated" for row in rows) == 5
    assert [row.width for row in rows] == [None if index % 6 == 5 else 60 + index for index in range(30)]


def test_origin(classifier: Classifier, photos: Path) -> None:
    row = next(iter(engine(classifier).rows(Files([photos]))))
    assert row.origin.model_name == "colours"
    assert row.origin.model_digest == classifier.artifact.digest
    assert (row.origin.runtime, row.origin.device) == ("onnx", "cpu")


def test_options_are_passed_on(classifier: Classifier, photos: Path) -> None:
    rows = list(LocalEngine(Scorer(classifier, Settings(top_k=1, max_pixels=3500))).rows(Files([photos])))
    assert {len(row.top_k) for row in rows if row.label} == {1}
    codes = [row.error_code for row in rows[9:13]]
    assert codes == [None, None, "image_truncated", "image_too_many_pixels"]


@pytest.mark.parametrize("name", ["streams", "batch_size"])
def test_numbers_below_one_are_refused_before_the_run(classifier: Classifier, name: str) -> None:
    with pytest.raises(ParameterInvalid, match=f"{name} is 0, it must be 1 or more"):
        engine(classifier, **{name: 0})


@pytest.mark.parametrize("name", ["top_k", "max_pixels"])
def test_settings_below_one_are_refused(name: str) -> None:
    with pytest.raises(ParameterInvalid, match=f"{name} is 0, it must be 1 or more"):
        Settings(**{name: 0})


def test_defaults_follow_the_machine(classifier: Classifier) -> None:
    by_default = engine(classifier)
    assert (by_default.streams, by_default.batch_size) == (Budget.plan().streams, 1)
    on_gpu = Classifier(classifier.artifact, _Gpu())
    assert engine(on_gpu).batch_size == CUDA_BATCH


class _Gpu:
    name, file, device, execution_provider = "onnx", "model.onnx", "cuda", "CUDAExecutionProvider"


def fails(error: Exception) -> Callable[[], bytes]:
    def reader() -> bytes:
        raise error

    return reader


@pytest.mark.parametrize("options", ENGINES, ids=str)
def test_nothing_that_one_input_does_harms_another(
    classifier: Classifier, picture: Callable[..., bytes], inputs: Any, options: dict[str, int]
) -> None:
    good = picture()
    source = inputs(
        lambda: good,
        fails(ImageUnreadable("gone; check")),
        lambda: b"",
        fails(RuntimeError("surprise")),
        lambda: b"text",
        fails(MemoryError()),
        lambda: good,
    )
    rows = list(engine(classifier, **options).rows(source))
    assert [row.label or row.error_code for row in rows] == [
        "red", "image_unreadable", "image_empty", "internal", "image_unsupported", "internal", "red",
    ]  # fmt: skip
    assert rows[3].error_detail == "RuntimeError: surprise; please report it with the picture"


@pytest.mark.parametrize("options", [{"streams": 2}, {"batch_size": 3}], ids=str)
def test_model_that_fails_for_one_picture(
    classifier: Classifier, picture: Callable[..., bytes], inputs: Any, options: dict[str, int]
) -> None:
    def refuse_green(crops: Crop) -> None:
        if any(crop[..., 1].mean() > crop[..., 0].mean() for crop in crops):
            raise RuntimeError("out of memory")

    watched = Watched(classifier, refuse_green)
    colours = [(220, 30, 30), (30, 200, 40), (220, 30, 30), (220, 30, 30)]
    source = inputs(*(lambda colour=colour: picture(colour) for colour in colours))
    rows = list(engine(watched, **options).rows(source))
    assert [row.label or row.error_code for row in rows] == ["red", "internal", "red", "red"]
    assert "out of memory" in (rows[1].error_detail or "")


@pytest.mark.parametrize("options", [{"streams": 2}, {"batch_size": 3}], ids=str)
def test_logits_that_are_not_finite(
    classifier: Classifier, photos: Path, options: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(crops: Crop) -> Logits:
        return np.full((len(crops), 3), np.nan, dtype=np.float32)

    watched = Watched(classifier)
    monkeypatch.setattr(watched, "logits", broken)
    rows = list(engine(watched, **options).rows(Files([photos / "00.jpg"])))
    assert rows[0].error_code == "internal"
    assert "not finite" in (rows[0].error_detail or "")


def test_batches_have_one_size(classifier: Classifier, photos: Path) -> None:
    watched = Watched(classifier)
    rows = list(engine(watched, batch_size=8).rows(Files([photos])))
    assert len(rows) == 30
    # 25 good pictures; the last batch is filled up, so that a GPU never meets a new size.
    assert watched.batches == [8, 8, 8, 8]


def test_streams_run_at_batch_one(classifier: Classifier, photos: Path) -> None:
    watched = Watched(classifier)
    list(engine(watched, streams=2).rows(Files([photos])))
    assert watched.batches == [1] * 25


def test_no_more_than_streams_compute_while_others_read(
    classifier: Classifier, picture: Callable[..., bytes], inputs: Any
) -> None:
    computing, reading = Gauge(), Gauge()
    data = picture(size=(40, 40))

    def read() -> bytes:
        with reading:
            time.sleep(0.005)
        return data

    def compute(_: Crop) -> None:
        with computing:
            time.sleep(0.005)

    watched = Watched(classifier, compute)
    assert len(list(engine(watched, streams=2).rows(inputs(*[read] * 60)))) == 60
    assert computing.highest == 2
    assert 2 < reading.highest <= READING_THREADS


def test_source_that_went_away_is_asked_no_more(classifier: Classifier, inputs: Any) -> None:
    """Each asking may take a minute: those that are under way are the last."""
    asked: list[int] = []

    def away() -> bytes:
        asked.append(1)
        time.sleep(0.2)
        raise SourceGone("away")

    with pytest.raises(SourceGone, match="away"):
        list(engine(classifier, streams=2).rows(inputs(*[away] * 200)))
    assert len(asked) <= READING_THREADS


def test_empty_source(classifier: Classifier) -> None:
    assert list(engine(classifier).rows([])) == []
    assert list(engine(classifier, batch_size=4).rows([])) == []


@pytest.mark.parametrize("options", ENGINES, ids=str)
def test_stop_finishes_what_is_in_hand(
    classifier: Classifier, picture: Callable[..., bytes], inputs: Any, options: dict[str, int]
) -> None:
    stop, data = threading.Event(), picture(size=(40, 40))
    taken = Gauge()

    def items() -> Iterator[Any]:
        for item in inputs(*[lambda: data] * 500):
            taken.now += 1
            yield item

    rows = []
    for row in engine(classifier, **options).rows(items(), stop):
        rows.append(row)
        if len(rows) == 10:
            stop.set()
    # The first so many, and a row for every input that was taken.
    assert [row.id for row in rows] == list(range(taken.now))
    assert all(row.label == "red" for row in rows)
    assert 10 <= len(rows) <= 10 + 256
