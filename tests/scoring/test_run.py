"""A run: every row counted and kept, interrupted or not."""

import csv
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.classifier import Classifier
from inference.errors import DataInvalid, OutputUnwritable
from inference.repository import Repository
from scoring.local import LocalEngine
from scoring.progress import SilentProgress
from scoring.rows import Origin, Row
from scoring.run import interruptible, score
from scoring.sinks import FileSink
from scoring.sources import Files

ROOT = Path(__file__).parents[2]


class Kept(FileSink):
    """A file sink that fails after some rows."""

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
        self.total = 0
        self.told: list[tuple[int, int]] = []
        self.open = False

    def __enter__(self) -> "Noted":
        self.open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False

    def start(self, total: int) -> None:
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
        Files([photos, tmp_path / "gone.jpg"]), LocalEngine(classifier), FileSink(tmp_path / "out.csv"), progress
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
    summary = score(Files([photos / "00.jpg"]), LocalEngine(classifier), FileSink(tmp_path / "out.csv"))
    assert summary.exit_status == 0


def test_same_run_gives_the_same_bytes(classifier: Classifier, photos: Path, tmp_path: Path) -> None:
    for name, streams in (("a.jsonl", 1), ("b.jsonl", 4)):
        score(Files([photos]), LocalEngine(classifier, streams=streams), FileSink(tmp_path / name))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_nothing_to_score_leaves_nothing_behind(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataInvalid, match="no pictures were found"):
        score(Files([tmp_path / "in"]), LocalEngine(classifier), FileSink(tmp_path / "out.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_sink_that_fails_keeps_the_rows_so_far(classifier: Classifier, photos: Path, tmp_path: Path) -> None:
    threads = threading.active_count()
    with pytest.raises(OutputUnwritable, match="the disk is full"):
        score(Files([photos]), LocalEngine(classifier), Kept(tmp_path / "out.csv", room=7))
    assert [row["id"] for row in read(tmp_path / "out.csv.part")] == [str(index) for index in range(7)]
    assert not (tmp_path / "out.csv").exists()
    assert threading.active_count() == threads


class Engine:
    """An engine that gives the rows it is told to."""

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

    with pytest.raises(OSError, match="gone"):
        score(Vanishing(*[lambda: data] * 4), LocalEngine(classifier), FileSink(tmp_path / "out.csv"))
    assert len(read(tmp_path / "out.csv.part")) == 4


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
        target=lambda: found.append(score(Files([photos]), LocalEngine(classifier), FileSink(tmp_path / "out.csv")))
    )
    thread.start()
    thread.join(30)
    assert found[0].rows == 30


def test_signal_with_the_last_row_interrupts_nothing(classifier: Classifier, photos: Path, tmp_path: Path) -> None:
    class Late(SilentProgress):
        def update(self, done: int, failed: int) -> None:
            if done == 30:
                os.kill(os.getpid(), signal.SIGINT)

    summary = score(Files([photos]), LocalEngine(classifier), FileSink(tmp_path / "out.csv"), Late())
    assert (summary.rows, summary.interrupted) == (30, False)
    assert (tmp_path / "out.csv").exists()


# --- signals to a real process ----------------------------------------------------------------------------------------

SLOW = """
import sys, time
from pathlib import Path
from inference.classifier import Classifier
from inference.repository import Repository
from scoring.local import LocalEngine
from scoring.run import score
from scoring.sinks import FileSink
from scoring.sources import FileItem, Files

read = FileItem.read
FileItem.read = lambda item: (time.sleep(float(sys.argv[4])), read(item))[1]
classifier = Classifier.load(Repository(Path(sys.argv[1])).open("colours"), device="cpu")
summary = score(Files([sys.argv[2]] * 100), LocalEngine(classifier, streams=2), FileSink(Path(sys.argv[3])))
print(summary)
raise SystemExit(summary.exit_status)
"""


@pytest.fixture
def slow(repository: Repository, photos: Path, tmp_path: Path) -> Iterator[Callable[[float], "subprocess.Popen[str]"]]:
    """A started run of 3,000 inputs, each of which takes this many seconds to read; already some rows far."""
    running: list[subprocess.Popen[str]] = []

    def start(seconds: float) -> "subprocess.Popen[str]":
        arguments = [str(repository.root), str(photos), str(tmp_path / "out.csv"), str(seconds)]
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        part = tmp_path / "out.csv.part"
        until = time.monotonic() + 60
        while not (part.exists() and part.read_text().count("\n") > 3):
            assert time.monotonic() < until
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_what_is_in_hand(slow: Any, tmp_path: Path, number: signal.Signals) -> None:
    process = slow(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    rows = read(tmp_path / "out.csv.part")
    assert [row["id"] for row in rows] == [str(index) for index in range(len(rows))]
    assert all(row["label"] or row["error_code"] == "image_truncated" for row in rows)
    head = rf"Interrupted: {len(rows)} rows in .* → {re.escape(str(tmp_path))}/out\.csv\.part\n"
    assert re.match(head, out)
    assert not (tmp_path / "out.csv").exists()


def test_second_signal_ends_at_once(slow: Any, tmp_path: Path) -> None:
    process = slow(0.7)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert len(read(tmp_path / "out.csv.part")) >= 3


def test_kill_9_keeps_the_rows_so_far(slow: Any, tmp_path: Path) -> None:
    process = slow(0.05)
    process.kill()
    process.communicate(timeout=30)
    rows = read(tmp_path / "out.csv.part")
    assert [row["id"] for row in rows] == [str(index) for index in range(len(rows))]
    assert len(rows) >= 3
