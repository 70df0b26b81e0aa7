"""Output is whole or plainly unfinished, and reads back as what was written."""

import fcntl
import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inference.errors import OutputUnwritable
from scoring.formats import csv_line
from scoring.rows import COLUMNS
from scoring.sinks import FileSink, StreamSink
from tests.scoring.rows import ROWS, flat, write

ROOT = Path(__file__).parents[2]


def test_file_has_its_name_only_when_whole(tmp_path: Path) -> None:
    path, folder = tmp_path / "out.csv", tmp_path / "out.csv.parts"
    with FileSink(path) as sink:
        sink.begin({}, COLUMNS)
        sink.write(ROWS[0])
        sink.commit_part("")
        assert (path.exists(), sink.place) == (False, str(folder))
        # Rows are with the operating system, so that kill -9 does not take them.
        assert (folder / "00000000.csv").read_text() == csv_line(ROWS[0], COLUMNS)
        sink.commit()
    assert (path.exists(), folder.exists(), sink.place) == (True, False, str(path))


def test_folder_without_rows_is_removed(tmp_path: Path) -> None:
    with FileSink(tmp_path / "out.csv") as sink:
        sink.begin({}, COLUMNS)
        sink.write(ROWS[0])
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("precious")
    with pytest.raises(OutputUnwritable, match=r"out\.csv exists already; choose another output or add --overwrite"):
        FileSink(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "precious"


def test_folder_as_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable, match="is a folder; choose another output"):
        FileSink(tmp_path, "csv", overwrite=True)


def test_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.csv.parts").mkdir()
    (tmp_path / "out.csv.parts" / "2024.csv").write_text("precious")
    for restart in (False, True):
        with pytest.raises(OutputUnwritable, match=r"out\.csv\.parts holds files that are not of a scoring run"):
            write(FileSink(tmp_path / "out.csv", restart=restart))
    assert [path.name for path in (tmp_path / "out.csv.parts").iterdir()] == ["2024.csv"]
    (tmp_path / "out.csv.parts" / "2024.csv").unlink()
    write(FileSink(tmp_path / "out.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_lock_of_a_removed_journal_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that held the folder ends, and removes it, between the opening and the locking of another."""
    flock, removed = fcntl.flock, []

    def late(file: io.FileIO, operation: int) -> None:
        if not removed:
            removed.append((tmp_path / "out.csv.parts" / "journal.jsonl").unlink())
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with FileSink(tmp_path / "out.csv") as sink:
        sink.begin({}, COLUMNS)
        assert removed
        with (
            pytest.raises(OutputUnwritable, match="a run that is still going on"),
            FileSink(tmp_path / "out.csv") as other,
        ):
            other.begin({}, COLUMNS)


def test_output_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with FileSink(tmp_path / "out.csv") as sink:
        sink.begin({}, COLUMNS)
        sink.write(ROWS[0])
        sink.commit_part("")
        (tmp_path / "out.csv").write_text("precious")
        with pytest.raises(OutputUnwritable, match="exists already"):
            sink.commit()
    with pytest.raises(OutputUnwritable, match="exists already"):
        write(FileSink(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text() == "precious"
    assert (tmp_path / "out.csv.parts" / "00000000.csv").exists()


def test_overwriting(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("old")
    with FileSink(tmp_path / "out.csv", overwrite=True) as sink:
        sink.begin({}, COLUMNS)
        sink.write(ROWS[0])
        sink.commit_part("")
        assert (tmp_path / "out.csv").read_text() == "old"
        sink.commit()
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(
        OutputUnwritable, match=r"cannot be written \(No such file or directory\); choose another place"
    ):
        write(FileSink(tmp_path / "missing" / "out.csv"))
    with pytest.raises(OutputUnwritable, match=r"out\.csv\.parts cannot be written \(Not a directory\)"):
        write(FileSink(Path("/dev/null/out.csv")))


@pytest.fixture
def limited() -> Iterator[Callable[[int], None]]:
    """Limits the size of files, which cuts a write in the middle, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, before)


FULL = (
    r"out\.csv cannot be written any further \(File too large\); the 1 rows so far are in .*parts; make room, then run"
)


# Room for the first part but not the second; for the parts but not the journal; for these but not the whole.
@pytest.mark.parametrize("size", [len(csv_line(ROWS[0], COLUMNS)) + 100, 500])
def test_full_disk_keeps_the_parts(tmp_path: Path, limited: Callable[[int], None], size: int) -> None:
    path = tmp_path / "out.csv"
    with FileSink(path) as sink:
        sink.begin({}, COLUMNS)
        sink.write(ROWS[0])
        sink.commit_part("a")
        limited(size)
        for row in ROWS[1:4]:
            sink.write(row)
        with pytest.raises(OutputUnwritable, match=FULL):
            sink.commit_part("b")
    limited(resource.RLIM_INFINITY)
    with FileSink(path) as sink:
        assert [part.inputs for part in sink.begin({}, COLUMNS)] == ["a"]
        for row in ROWS[1:]:
            sink.write(row)
        sink.commit_part("b")
        sink.commit()
    write(FileSink(tmp_path / "whole.csv"))
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_full_disk_at_the_end_keeps_the_parts(tmp_path: Path, limited: Callable[[int], None]) -> None:
    path = tmp_path / "out.csv"
    with FileSink(path) as sink:
        sink.begin({}, COLUMNS)
        for row in ROWS:
            sink.write(row)
            sink.commit_part("")
        limited(1000)
        with pytest.raises(OutputUnwritable, match=r"the 11 rows so far are in"):
            sink.commit()
    limited(resource.RLIM_INFINITY)
    with FileSink(path) as sink:
        assert len(sink.begin({}, COLUMNS)) == 11
        sink.commit()
    whole = ",".join(COLUMNS) + "\n" + "".join(csv_line(row, COLUMNS) for row in ROWS)
    assert path.read_bytes() == whole.encode()


def test_file_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append((tmp_path / "out.csv").exists())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write(FileSink(tmp_path / "out.csv"))
    # The file, the journal's word that it is whole; then its name.
    assert synced == [False, False, True]


# --- streams ----------------------------------------------------------------------------------------------------------


def test_stream() -> None:
    stream = io.BytesIO()
    write(StreamSink("jsonl", stream))
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [flat(row) for row in ROWS]
    assert not stream.closed
    stream = io.BytesIO()
    write(StreamSink("csv", stream), [])
    assert stream.getvalue().decode().strip() == ",".join(COLUMNS)


STREAM = """
from scoring.rows import Origin, Row
from scoring.sinks import StreamSink
from inference.errors import OutputUnwritable
import sys

try:
    with StreamSink() as sink:
        sink.begin({}, ["id", "path"])
        for index in range(100_000):
            sink.write(Row(index, "a" * 1000, Origin("", "", "", "", "")))
except OutputUnwritable as error:
    print(error, file=sys.stderr)
    raise SystemExit(3)
"""


@pytest.mark.parametrize(
    ("shell", "reason"), [("| head -n 1 > /dev/null", "Broken pipe"), ("> /dev/full", "No space left on device")]
)
def test_standard_output_that_takes_no_more(shell: str, reason: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {shell}; exit "${{PIPESTATUS[0]}}"', sys.executable, STREAM],
        cwd=ROOT,
        # Buffered, as for every user: what the buffer still holds at exit must not raise once more.
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    # Nothing else is printed, at exit either.
    assert done.stderr == f"standard output takes no more rows ({reason}); read it to its end or write to a file\n"


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(OutputUnwritable, match="is a device or a pipe, which no file may replace"):
        FileSink(tmp_path / "pipe.csv", overwrite=True)
    with pytest.raises(OutputUnwritable, match=r"'\.' names no file"):
        FileSink(Path())
