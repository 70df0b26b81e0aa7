"""A run that is killed or interrupted at any moment goes on, and ends with the bytes of one that nobody disturbed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.repository import Repository
from tests.fresh import python

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
    done = python("-c", DYING, str(tmp_path), f"out.{kind}")
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
def start(
    repository: Repository, photos: Path, running: "list[subprocess.Popen[str]]"
) -> Callable[..., "subprocess.Popen[str]"]:
    """Starts a run of 150 inputs in a process of its own, each of which takes `seconds` to read."""

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

    return started


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
