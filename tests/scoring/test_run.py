"""A run: every row counted and kept, interrupted or not."""

import csv
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from inference.classifier import Classifier
from inference.errors import DataInvalid, OutputUnwritable, SourceGone
from scoring.files import Files
from scoring.local import LocalEngine
from scoring.progress import SilentProgress
from scoring.rows import COLUMNS, Origin, Row
from scoring.run import interruptible, score
from scoring.scorer import Scorer
from scoring.sinks import FileSink


class Full(FileSink):
    """A file sink that takes so many rows and no more."""

    def __init__(self, path: Path, room: int) -> None:
        super().__init__(path)
        self._room = room

    def write(self, row: Row) -> None:
        if self._room == 0:
            raise OutputUnwritable("the disk is full")
        self._room -= 1
        super().write(row)


class Noted(SilentProgress):
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.total: int | None = 0
        self.told: list[tuple[int, int]] = []
        self.open = False

    def __enter__(self) -> "Noted":
        self.open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False

    def start(self, total: int | None, done: int = 0) -> None:
        self.total = total

    def update(self, done: int, failed: int) -> None:
        assert self.open
        self.told.append((done, failed))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_complete_run(classifier: Classifier, photos: Path, tmp_path: Path) -> None:
    progress = Noted()
    summary = score(
        Files([photos, tmp_path / "gone.jpg"]),
        LocalEngine(Scorer(classifier)),
        FileSink(tmp_path / "out.csv"),
        progress,
    )
    assert (summary.rows, summary.answered, summary.failed) == (31, 25, 6)
    assert summary.labels == {"red": 10, "green": 10, "blue": 5}
    assert list(summary.labels) == ["green", "red", "blue"]
    assert summary.errors == {"image_truncated": 5, "image_unreadable": 1}
    assert (summary.interrupted, summary.exit_status) == (False, 1)
    assert summary.place == str(tmp_path / "out.csv")
    assert summary.seconds > 0
    assert progress.total == 31
    assert progress.told[-1] == (31, 6)
    assert [done for done, _ in progress.told] == list(range(1, 32))
    rows = read(tmp_path / "out.csv")
    assert [row["id"] for row in rows] == [str(index) for index in range(31)]
    assert sum(bool(row["label"]) for row in rows) == 25


def test_all_answered(classifier: Classifier, photos: Path, tmp_path: Path) -> None:
    summary = score(Files([photos / "00.jpg"]), LocalEngine(Scorer(classifier)), FileSink(tmp_path / "out.csv"))
    assert summary.exit_status == 0


def test_same_run_gives_the_same_bytes(classifier: Classifier, photos: Path, tmp_path: Path) -> None:
    for name, streams in (("a.jsonl", 1), ("b.jsonl", 4)):
        score(Files([photos]), LocalEngine(Scorer(classifier), streams=streams), FileSink(tmp_path / name))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_nothing_to_score_leaves_nothing_behind(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataInvalid, match="no pictures were found"):
        score(Files([tmp_path / "in"]), LocalEngine(Scorer(classifier)), FileSink(tmp_path / "out.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def committed(folder: Path) -> list[str]:
    """The ids of the rows in the parts of a CSV."""
    lines = [line for part in sorted(folder.glob("*.csv")) for line in part.read_text().splitlines()]
    return [line.split(",")[0] for line in lines]


def test_sink_that_fails_keeps_the_parts_so_far(
    classifier: Classifier, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scoring.run.PART_ROWS", 3)
    threads = threading.active_count()
    with pytest.raises(OutputUnwritable, match="the disk is full"):
        score(Files([photos]), LocalEngine(Scorer(classifier)), Full(tmp_path / "out.csv", room=7))
    assert committed(tmp_path / "out.csv.parts") == list("012345")
    assert not (tmp_path / "out.csv").exists()
    assert threading.active_count() == threads


class Engine:
    """An engine that gives the rows it is told to."""

    batch_size, fingerprint, columns = 1, {"model": "none"}, COLUMNS

    def __init__(self, *ids: int, take: int = 4) -> None:
        self._ids = ids
        self._take = take

    def rows(self, items: Iterator[Any], stop: threading.Event) -> Any:
        for _ in range(self._take):
            next(items, None)
        for index in self._ids:
            yield Row(index, "", Origin("", "", "", "", "")).failed(ValueError())


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((0, 1), "3 inputs gave 2 rows"),
        ((0, 2, 1), "row 2 came where row 1 belongs"),
        ((0, 0), "row 0 came where row 1"),
    ],
)
def test_engine_that_loses_rows_is_found_out(ids: tuple[int, ...], message: str, inputs: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=message):
        score(inputs(*[bytes] * 3), Engine(*ids), FileSink(tmp_path / "out.csv"))
    assert not (tmp_path / "out.csv").exists()


def test_engine_that_ends_early_is_found_out(inputs: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="2 inputs gave 2 rows and the run ended"):
        score(inputs(*[bytes] * 3), Engine(0, 1, take=2), FileSink(tmp_path / "out.csv"))
    assert not (tmp_path / "out.csv").exists()


def test_source_that_vanishes_keeps_the_rows_so_far(
    classifier: Classifier, inputs: Any, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    data = picture()

    class Vanishing(inputs):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            yield from super().__iter__()
            raise OSError("gone")

    with pytest.raises(SourceGone, match=r"cannot be read any further \(gone\); bring it back, then run the same"):
        score(Vanishing(*[lambda: data] * 4), LocalEngine(Scorer(classifier)), FileSink(tmp_path / "out.csv"))
    assert committed(tmp_path / "out.csv.parts") == list("0123")


def test_source_that_gives_nothing(tmp_path: Path) -> None:
    class Empty:
        description = "a stream"

        def __iter__(self) -> Iterator[Any]:
            return iter(())

        def count(self) -> None:
            return None

    with pytest.raises(DataInvalid, match="there is nothing to score: a stream has no input"):
        score(Empty(), Engine(take=1), FileSink(tmp_path / "out.csv"))
    assert list(tmp_path.iterdir()) == []


def test_parts_are_committed_after_some_time(
    classifier: Classifier, inputs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scoring.run.PART_SECONDS", 0.02)
    source = inputs(*[lambda: time.sleep(0.05) or b""] * 6)
    sizes = []

    class Looking(SilentProgress):
        def update(self, done: int, failed: int) -> None:
            sizes.append(len(committed(tmp_path / "out.csv.parts")))

    score(source, LocalEngine(Scorer(classifier)), FileSink(tmp_path / "out.csv"), Looking())
    assert 0 < sizes[3] <= 4


def test_parts_end_with_whole_batches(
    classifier: Classifier, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scoring.run.PART_ROWS", 1)
    sizes: list[int] = []

    class Watched(FileSink):
        def commit_part(self, inputs: str, witnesses: Sequence[str] = ()) -> None:
            sizes.append(len(self._rows))
            super().commit_part(inputs, witnesses)

    score(Files([photos]), LocalEngine(Scorer(classifier, batch_size=8)), Watched(tmp_path / "out.csv"))
    assert sizes == [8, 8, 8, 6]


def test_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interruptible() as stop:
        assert signal.getsignal(signal.SIGINT) is not before[0]
        assert not stop.is_set()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with interruptible() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(5)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_threads_may_score(classifier: Classifier, photos: Path, tmp_path: Path) -> None:
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append(
            score(Files([photos]), LocalEngine(Scorer(classifier)), FileSink(tmp_path / "out.csv"))
        )
    )
    thread.start()
    thread.join(30)
    assert found[0].rows == 30


def test_signal_with_the_last_row_interrupts_nothing(classifier: Classifier, photos: Path, tmp_path: Path) -> None:
    class Late(SilentProgress):
        def update(self, done: int, failed: int) -> None:
            if done == 30:
                os.kill(os.getpid(), signal.SIGINT)

    summary = score(Files([photos]), LocalEngine(Scorer(classifier)), FileSink(tmp_path / "out.csv"), Late())
    assert (summary.rows, summary.interrupted) == (30, False)
    assert (tmp_path / "out.csv").exists()
