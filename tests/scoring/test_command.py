"""`petalpaw score` as a user meets it: a real process, its two streams, its exit status, and what it leaves behind."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from inference.repository import Repository

ROOT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(repository: Repository, photos: Path, running: "list[subprocess.Popen[bytes]]") -> Start:
    """Starts `petalpaw score` beside a folder `photos` of 30 pictures, of which five are damaged."""

    def started(*arguments: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", "petalpaw", "score", *arguments, "--model", "colours"],
            cwd=photos.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PETALPAW_MODELS": str(repository.root), "COLUMNS": "200"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        return process

    return started


def ended(process: "subprocess.Popen[bytes]", stdin: bytes = b"") -> tuple[int, str, str]:
    out, err = process.communicate(stdin, timeout=60)
    return process.returncode, out.decode(), err.decode()


def test_everything_at_once(start: Start, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,n\nphotos/00.jpg,1\n")
    options = ["--column", "path", "--hash", "--with-logits", "--summary", "s.json", "--fail-on-error-rate", "0.2"]
    status, out, err = ended(start("photos", "t.csv", "-o", "out.parquet", *options))
    # 5 of 31 failed, which is less than a fifth.
    assert (status, out) == (0, "")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names[-2:] == ["content_hash", "logits"]
    first, *_, last = table.to_pylist()
    assert {**first, "id": 0} == {**last, "id": 0, "path": first["path"]}
    assert len(first["logits"]) == 3
    said = json.loads(table.schema.metadata[b"petalpaw"])
    assert (said["model"], said["source"], said["top_k"]) == ("colours/1", "photos, t.csv[path]", 5)
    summary = json.loads((tmp_path / "s.json").read_text())
    assert (summary["rows"], summary["errors"], summary["exit_status"]) == (31, {"image_truncated": 5}, 0)
    assert "31 inputs" in err
    assert "failed (16.1%): 5" in err


@pytest.mark.parametrize(
    ("closed", "source", "status", "says"),
    [
        ("<&-", "-", 3, "standard input is closed"),
        (">&-", "photos", 3, "standard output is closed; name a file with --output"),
        ("2>&- <&-", "photos -o out.csv", 1, ""),
    ],
)
def test_closed_streams(
    repository: Repository, photos: Path, tmp_path: Path, closed: str, source: str, status: int, says: str
) -> None:
    command = f"exec {sys.executable} -m petalpaw score {source} --model colours --models {repository.root} {closed}"
    run = subprocess.run(
        ["bash", "-c", command],
        cwd=photos.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, says in run.stderr, "Traceback" in run.stderr) == (status, True, False), run.stderr
    assert (tmp_path / "out.csv").exists() == ("out.csv" in source)


def test_paths_on_standard_input(start: Start, tmp_path: Path, picture: Callable[..., bytes]) -> None:
    (tmp_path / "two\nlines.jpg").write_bytes(picture())
    status, out, _ = ended(start("-", "--null"), b"photos/00.jpg\0two\nlines.jpg\0gone.jpg\0")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["path"] for row in rows] == ["photos/00.jpg", "two\nlines.jpg", "gone.jpg"]
    assert (status, [row["error_code"] for row in rows]) == (1, [None, None, "image_unreadable"])


def test_names_that_look_like_options(start: Start, tmp_path: Path, picture: Callable[..., bytes]) -> None:
    (tmp_path / "-rf.jpg").write_bytes(picture())
    status, out, _ = ended(start("--format", "csv", "./-rf.jpg"))
    assert status == 0
    assert next(csv.DictReader(out.splitlines()))["path"] == "./-rf.jpg"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["t.csv", "--column", "nope"], 3, "t.csv: it has no column 'nope'; it has path, n"),
        (["photos", "--column", "x"], 2, "--column and --base belong to a table"),
        (["photos", "-o", "out.csv", "--with-features"], 2, "there are no features"),
        (["photos", "-o", "out.csv", "--summary", "nowhere/s.json"], 3, "nowhere/s.json"),
        (["broken.tar"], 3, "is no tar file that can be read"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    start: Start, tmp_path: Path, arguments: list[str], status: int, says: str
) -> None:
    (tmp_path / "t.csv").write_text("path,n\nphotos/00.jpg,1\n")
    (tmp_path / "broken.tar").write_text("no tar")
    found, out, err = ended(start(*arguments))
    assert (found, out) == (status, "")
    assert says in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out.csv.parts").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "out.csv", "--summary", "t.csv"], "--summary names t.csv, which is a source"),
        (["-o", "out.csv", "--summary", "hard.csv"], "--summary names hard.csv, which is a source"),
        (["-o", "t.csv", "--overwrite"], "--output names t.csv, which is a source"),
        (["-o", "out.csv", "--summary", "./out.csv"], "--summary names out.csv, which is the file of --output"),
    ],
)
def test_one_file_twice_is_refused(start: Start, tmp_path: Path, arguments: list[str], says: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path\nphotos/00.jpg\n")
    (tmp_path / "hard.csv").hardlink_to(table)
    status, out, err = ended(start("t*.csv", "--column", "path", *arguments))
    assert (status, out) == (2, "")
    assert says in err
    assert table.read_text() == "path\nphotos/00.jpg\n"


def test_no_summary_of_an_earlier_run_stays(start: Start, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("yesterday's")
    status, _, _ = ended(start("photos", "-o", "out.csv", "--summary", "s.json", "--with-features"))
    assert status == 2
    assert not (tmp_path / "s.json").exists()


def test_kill_9_and_the_same_command_again(start: Start, tmp_path: Path) -> None:
    """Paths come one by one, so that the kill certainly meets the middle."""
    names = [f"photos/{index % 30:02}.jpg\n".encode() for index in range(200)]
    assert ended(start("-", "-o", "whole.csv"), b"".join(names))[0] == 1
    process = start("-", "-o", "out.csv")
    assert process.stdin is not None
    journal = tmp_path / "out.csv.parts" / "journal.jsonl"
    for name in names[:-50]:
        process.stdin.write(name)
        process.stdin.flush()
        time.sleep(0.15)
        # The first line says of what run the parts are, a part has a line each.
        if journal.exists() and journal.read_bytes().count(b"\n") > 1:
            break
    process.kill()
    process.communicate()
    assert not (tmp_path / "out.csv").exists()
    status, _, err = ended(start("-", "-o", "out.csv"), b"".join(names))
    assert status == 1
    assert "of them are done already" in err, err
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not (tmp_path / "out.csv.parts").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("ignored", [False, True])
def test_second_interrupt_waits_for_no_thread(start: Start, tmp_path: Path, ignored: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        process = start("photos/00.jpg", "pipe", "-o", "out.csv")
    finally:
        signal.signal(signal.SIGINT, before)
    while not (tmp_path / "out.csv.parts" / "journal.jsonl").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130


@pytest.mark.timeout(60)
def test_row_comes_before_the_next_path(start: Start) -> None:
    process = start("-", "--format", "jsonl")
    assert process.stdin
    assert process.stdout
    for index in range(2):
        process.stdin.write(b"photos/00.jpg\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == index
    # Nor does the first interrupt wait for one.
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
