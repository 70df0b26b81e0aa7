"""A run that ended early goes on: every input once, and the bytes of a run that nobody disturbed."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.classifier import Classifier
from inference.errors import DataInvalid, OutputUnwritable, SourceGone
from inference.repository import Repository
from inference.runtimes.registry import RUNTIMES
from scoring.files import Files
from scoring.local import LocalEngine
from scoring.rows import Settings
from scoring.run import score
from scoring.scorer import PACKAGES, Scorer
from scoring.sinks import FileSink
from scoring.summary import Summary

ROOT = Path(__file__).parents[2]


# --- kill -9 at every step --------------------------------------------------------------------------------------------

DYING = """
import os, signal, sys, threading
from pathlib import Path
from scoring import run
from scoring.rows import COLUMNS, Origin, Row
from scoring.sinks import FileSink
from inference.errors import ImageEmpty

FOLDER, NAME = Path(sys.argv[1]), sys.argv[2]
run.PART_ROWS = 4


class Source:
    description = "numbers"

    def __iter__(self):
        return iter([Number(index) for index in range(10)])

    def count(self):
        return 10


class Number:
    def __init__(self, index):
        self.id, self.path = index, f"{index}.jpg"

    def stamp(self):
        return self.path


class Engine:
    batch_size, fingerprint, columns = 1, {"model": "numbers/1"}, COLUMNS

    def rows(self, items, stop):
        for item in items:
            yield Row(item.id, item.path, Origin("numbers", "1", "", "", "")).failed(ImageEmpty("it's\\nempty"))


def score(step, place):
    # Every file that is opened, renamed or removed below the output is a step; before the n-th the process dies.
    def watch(event, arguments, left=[step]):
        if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir") and str(place) in str(arguments[0]):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(watch)
    return run.score(Source(), Engine(), FileSink(place / NAME, overwrite=True))


def in_child(step, place):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if score(step, place).rows == 10 else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


(FOLDER / "whole").mkdir()
assert in_child(-1, FOLDER / "whole") == 0
expected = (FOLDER / "whole" / NAME).read_bytes()
step = 0
while True:
    place = FOLDER / f"step{step}"
    place.mkdir()
    ended = in_child(step, place)
    # Killed once more soon after, and once more later, then left alone.
    for further in (2, 7):
        if ended:
            in_child(further, place)
    assert in_child(-1, place) == 0
    assert [path.name for path in place.iterdir()] == [NAME], list(place.iterdir())
    assert (place / NAME).read_bytes() == expected, step
    if ended == 0:
        break
    assert ended == -signal.SIGKILL, ended
    step += 1
print(step)
"""


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_killed_at_every_step_it_goes_on(kind: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path), f"out.{kind}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Three parts, the journal, the join: that many steps at least were died at.
    assert int(done.stdout) > 12


# --- real processes ---------------------------------------------------------------------------------------------------

SLOW = """
import sys, time
from pathlib import Path
from inference.classifier import Classifier
from inference.errors import PetalpawError
from inference.repository import Repository
from scoring import run
from scoring.files import FileItem, Files
from scoring.local import LocalEngine
from scoring.rows import Settings
from scoring.scorer import Scorer
from scoring.sinks import FileSink

models, photos, output, seconds, batch_size = sys.argv[1:]
run.PART_ROWS = 7
read = FileItem.read
FileItem.read = lambda item: (time.sleep(float(seconds)), read(item))[1]
classifier = Classifier.load(Repository(Path(models)).open("colours"), device="cpu")
scorer = Scorer(classifier, Settings(content_hash=True, logits=True), batch_size=int(batch_size))
try:
    summary = run.score(Files([photos] * 5), LocalEngine(scorer, streams=2), FileSink(Path(output)))
except PetalpawError as error:
    print(error, file=sys.stderr)
    raise SystemExit(3)
print(summary)
raise SystemExit(summary.exit_status)
"""


@pytest.fixture
def start(repository: Repository, photos: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a run of 150 inputs in a process of its own, each of which takes `seconds` to read."""
    running: list[subprocess.Popen[str]] = []

    def started(output: Path, seconds: float = 0, batch_size: int = 1) -> "subprocess.Popen[str]":
        arguments = [str(repository.root), str(photos), str(output), str(seconds), str(batch_size)]
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield started
    for process in running:
        process.kill()
        process.communicate()


def wait_for_parts(process: "subprocess.Popen[str]", output: Path, parts: int) -> None:
    journal = output.with_name(output.name + ".parts") / "journal.jsonl"
    until = time.monotonic() + 60
    while not (journal.exists() and journal.read_text().count("\n") > parts):
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.parametrize(("kind", "batch_size"), [("csv", 1), ("parquet", 1), ("jsonl", 4)])
def test_kill_9_again_and_again(start: Any, tmp_path: Path, kind: str, batch_size: int) -> None:
    whole, output = tmp_path / f"whole.{kind}", tmp_path / f"out.{kind}"
    assert start(whole, batch_size=batch_size).wait(60) == 1
    for parts in (0, 9):
        process = start(output, 0.1, batch_size)
        wait_for_parts(process, output, parts)
        process.kill()
        process.communicate()
        assert not output.exists()
    out, err = start(output, batch_size=batch_size).communicate(timeout=60)
    assert "of earlier runs" in out, err
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([output.name, whole.name, "photos"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_what_is_in_hand(start: Any, tmp_path: Path, number: signal.Signals) -> None:
    output = tmp_path / "out.csv"
    process = start(output, 0.3)
    wait_for_parts(process, output, 1)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    parts = (tmp_path / "out.csv.parts" / "journal.jsonl").read_text().splitlines()[1:]
    rows = sum(json.loads(part)["rows"] for part in parts)
    assert out.startswith(f"Interrupted: {rows} rows in ")
    assert out.splitlines()[0].endswith("out.csv.parts; run the same command again to go on")
    assert not output.exists()
    start(output).communicate(timeout=60)
    with output.open(newline="", encoding="utf-8") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [str(index) for index in range(150)]


def test_second_signal_ends_at_once(start: Any, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    process = start(output, 1)
    wait_for_parts(process, output, 1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_two_runs_cannot_write_one_file(start: Any, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    first = start(output, 0.3)
    wait_for_parts(first, output, 1)
    first.send_signal(signal.SIGSTOP)
    second = start(output)
    _, err = second.communicate(timeout=30)
    assert second.returncode == 3
    assert "is being written by a run that is still going on; wait for it" in err
    # However the first ends, its hold on the output ends with it.
    first.kill()
    first.communicate()
    assert start(output).wait(60) == 1


# --- what changed meanwhile -------------------------------------------------------------------------------------------


class Room(FileSink):
    """A file sink that takes so many rows and no more."""

    def __init__(self, path: Path, room: int) -> None:
        super().__init__(path)
        self._room = room

    def write(self, row: Any) -> None:
        if self._room == 0:
            raise OutputUnwritable("the disk is full")
        self._room -= 1
        super().write(row)


@pytest.fixture
def stopped(classifier: Classifier, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of a run of `photos` that ended after 20 of 30 rows, in five parts."""
    monkeypatch.setattr("scoring.run.PART_ROWS", 4)
    output = tmp_path / "out.jsonl"
    with pytest.raises(OutputUnwritable):
        score(Files([photos]), LocalEngine(Scorer(classifier)), Room(output, 22))
    return output


def go_on(
    classifier: Classifier, photos: Path, output: Path, settings: Settings | None = None, **options: Any
) -> Summary:
    return score(Files([photos]), LocalEngine(Scorer(classifier, settings)), FileSink(output, **options))


def undisturbed(classifier: Classifier, photos: Path) -> bytes:
    output = photos.parent / "undisturbed.jsonl"
    go_on(classifier, photos, output)
    return output.read_bytes()


def test_going_on_counts_everything(classifier: Classifier, photos: Path, stopped: Path) -> None:
    summary = go_on(classifier, photos, stopped)
    assert (summary.rows, summary.resumed, summary.failed) == (30, 20, 5)
    assert summary.labels == {"red": 10, "green": 10, "blue": 5}
    assert stopped.read_bytes() == undisturbed(classifier, photos)
    assert not stopped.with_name("out.jsonl.parts").exists()


def test_another_setting_is_refused(classifier: Classifier, photos: Path, stopped: Path) -> None:
    with pytest.raises(
        OutputUnwritable, match=r"unfinished run that was another \(top_k was 5 and is 2\); repeat .*--restart"
    ):
        go_on(classifier, photos, stopped, Settings(top_k=2))
    # Refusing harms nothing.
    assert go_on(classifier, photos, stopped).resumed == 20


def test_another_model_is_refused(classifier: Classifier, repository: Repository, photos: Path, stopped: Path) -> None:
    other = Classifier.load(repository.open("tones"), device="cpu")
    with pytest.raises(OutputUnwritable, match="model was 'colours/1' and is 'tones/1'; model_digest was"):
        go_on(other, photos, stopped)


def test_every_runtime_has_its_packages_in_the_fingerprint(classifier: Classifier) -> None:
    assert set(PACKAGES) == set(RUNTIMES)
    packages = Scorer(classifier).fingerprint["packages"]
    assert isinstance(packages, dict)
    assert {"petalpaw", "numpy", "pillow"} < set(packages)
    assert set(packages) & set(PACKAGES["onnx"])


def test_another_source_is_refused(classifier: Classifier, photos: Path, stopped: Path) -> None:
    with pytest.raises(OutputUnwritable, match=r"source was '.*photos' and is '.*photos/00\.jpg'"):
        go_on(classifier, photos / "00.jpg", stopped)


@pytest.mark.parametrize("change", ["content", "removed", "added", "all removed"])
def test_inputs_that_changed_are_noticed(classifier: Classifier, photos: Path, stopped: Path, change: str) -> None:
    if change == "content":
        (photos / "17.jpg").write_bytes(b"other")
    elif change == "removed":
        (photos / "02.jpg").unlink()
    elif change == "added":
        (photos / "02a.jpg").write_bytes(b"")
    else:
        for path in list(photos.iterdir())[1:]:
            path.unlink()
    with pytest.raises(DataInvalid, match="an earlier run scored, some are not what they were; add --restart"):
        go_on(classifier, photos, stopped)
    assert go_on(classifier, photos, stopped, restart=True).resumed == 0
    assert stopped.read_bytes() == undisturbed(classifier, photos)


def test_inputs_that_were_not_scored_yet_may_change(classifier: Classifier, photos: Path, stopped: Path) -> None:
    (photos / "25.jpg").write_bytes(b"other")
    (photos / "99.jpg").write_bytes(b"")
    assert go_on(classifier, photos, stopped).rows == 31
    assert stopped.read_bytes() == undisturbed(classifier, photos)


def test_restart_drops_what_there_was(classifier: Classifier, photos: Path, stopped: Path) -> None:
    summary = go_on(classifier, photos, stopped, Settings(top_k=1), restart=True)
    assert (summary.rows, summary.resumed) == (30, 0)
    assert {len(json.loads(line)["top_k"] or "1") for line in stopped.read_text().splitlines()} == {1}


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("harm", "resumed"),
    [
        (lambda folder: cut(folder / "journal.jsonl", -5), 16),
        (lambda folder: cut(folder / "journal.jsonl", 30), 0),
        (lambda folder: cut(folder / "journal.jsonl", 0), 0),
        (lambda folder: cut(folder / "00000003.jsonl", 100), 12),
        (lambda folder: (folder / "00000000.jsonl").unlink(), 0),
        (lambda folder: (folder / "00000009.jsonl").write_text("what was begun"), 20),
        (lambda folder: (folder / "joined").write_text("half"), 20),
    ],
    ids=["half a line", "half the head", "empty journal", "half a part", "no part", "another part", "half joined"],
)
def test_what_a_power_cut_leaves_half_is_scored_again(
    classifier: Classifier, photos: Path, stopped: Path, harm: Callable[[Path], None], resumed: int
) -> None:
    harm(stopped.with_name("out.jsonl.parts"))
    assert go_on(classifier, photos, stopped).resumed == resumed
    assert stopped.read_bytes() == undisturbed(classifier, photos)


@pytest.fixture
def uncleaned(classifier: Classifier, photos: Path, stopped: Path) -> Path:
    """Killed between the two last steps: the file has its name, its parts are still there."""
    sink = FileSink(stopped)
    sink._journal.remove = lambda: None  # type: ignore[method-assign]
    score(Files([photos]), LocalEngine(Scorer(classifier)), sink)
    assert stopped.read_bytes() == undisturbed(classifier, photos)
    return stopped


def test_output_that_is_whole_but_for_its_parts(classifier: Classifier, photos: Path, uncleaned: Path) -> None:
    folder, whole = uncleaned.with_name("out.jsonl.parts"), uncleaned.read_bytes()
    (folder / "00000000.jsonl").unlink()  # the clean-up had begun
    summary = go_on(classifier, photos, uncleaned)
    assert (summary.rows, summary.resumed, summary.exit_status) == (30, 30, 1)
    assert not folder.exists()
    assert uncleaned.read_bytes() == whole


@pytest.mark.parametrize("removed", [False, True])
def test_output_that_was_taken_away_is_made_again(
    classifier: Classifier, photos: Path, uncleaned: Path, removed: bool
) -> None:
    whole = uncleaned.read_bytes()
    uncleaned.write_text("another file")
    if removed:
        uncleaned.with_name("out.jsonl.parts").joinpath("00000000.jsonl").unlink()
    with pytest.raises(OutputUnwritable, match="exists already"):
        go_on(classifier, photos, uncleaned)
    assert uncleaned.read_text() == "another file"
    uncleaned.unlink()
    assert go_on(classifier, photos, uncleaned).resumed == (0 if removed else 30)
    assert uncleaned.read_bytes() == whole


def test_inputs_that_came_after_the_output_was_finished_are_not_lost(
    classifier: Classifier, photos: Path, uncleaned: Path
) -> None:
    whole = uncleaned.read_bytes()
    (photos / "99.jpg").write_bytes(b"")
    with pytest.raises(OutputUnwritable, match=r"finished with the 30 rows of an earlier run.*--restart --overwrite"):
        go_on(classifier, photos, uncleaned)
    assert uncleaned.read_bytes() == whole
    anew = FileSink(uncleaned, overwrite=True, restart=True)
    assert score(Files([photos]), LocalEngine(Scorer(classifier)), anew).rows == 31
    assert len(uncleaned.read_text().splitlines()) == 31


@pytest.mark.parametrize("old", ["yesterday's", None])
@pytest.mark.parametrize("grown", [False, True])
def test_output_that_could_not_get_its_name(
    classifier: Classifier, photos: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch, old: str | None, grown: bool
) -> None:
    """As a bind-mounted or immutable file refuses it."""
    if old:
        stopped.write_text(old)

    def refuse(_: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", refuse)
        with pytest.raises(OutputUnwritable, match=r"Device or resource busy.*the 30 rows so far are in"):
            score(Files([photos]), LocalEngine(Scorer(classifier)), FileSink(stopped, overwrite=True))
    assert (stopped.read_text() if stopped.exists() else None) == old
    if grown:
        (photos / "99.jpg").write_bytes(b"")
    if old:
        with pytest.raises(OutputUnwritable, match="exists already"):
            go_on(classifier, photos, stopped)
    summary = score(Files([photos]), LocalEngine(Scorer(classifier)), FileSink(stopped, overwrite=True))
    assert (summary.resumed, summary.rows) == (30, 31 if grown else 30)
    assert stopped.read_bytes() == undisturbed(classifier, photos)
    assert not stopped.with_name("out.jsonl.parts").exists()


def test_source_that_vanishes_ends_the_run_and_it_goes_on(
    classifier: Classifier, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a disk is unmounted: the folder is there and empty."""
    away, output = tmp_path / "away", tmp_path / "out.jsonl"
    whole = undisturbed(classifier, photos)

    def vanish(done: int) -> None:
        if done == 3:
            photos.rename(away)
            photos.mkdir()

    with pytest.raises(SourceGone, match=r"photos is gone since the run began; bring it back, then run the same"):
        score(Files([photos]), LocalEngine(Scorer(classifier), streams=1), Telling(output, vanish))
    photos.rmdir()
    away.rename(photos)
    summary = go_on(classifier, photos, output)
    assert 3 <= summary.resumed < 30
    assert output.read_bytes() == whole


class Telling(FileSink):
    """A file sink that tells how many rows it has."""

    def __init__(self, path: Path, tell: Callable[[int], None]) -> None:
        super().__init__(path)
        self._tell = tell
        self._count = 0

    def write(self, row: Any) -> None:
        super().write(row)
        self._count += 1
        self._tell(self._count)
