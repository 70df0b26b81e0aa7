"""Output is whole or plainly unfinished, and reads back as what was written."""

import csv
import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inference.errors import ImageEmpty, OutputUnwritable
from inference.prediction import Candidate, Prediction
from scoring import sinks
from scoring.rows import COLUMNS, Origin, Row
from scoring.sinks import FORMATS, FileSink, Sink, StreamSink, csv_line, format_of, json_line

ROOT = Path(__file__).parents[2]
ORIGIN = Origin("colours", "1", "sha256:0", "onnx", "cpu")
ANSWER = Prediction("red", 0.1 + 0.2, True, (Candidate("red", 0, 0.1 + 0.2), Candidate('a "b", c', 1, 1e-17)))
NAMES = [
    "a.jpg",
    "two\nlines.jpg",
    "cr\rcr\r\n.jpg",
    'quote".jpg',
    "comma,.jpg",
    " blank ",
    "=1+1",
    "日本 é",
    "",
    "tab\t",
]
ROWS = [Row(index, name, ORIGIN, width=4, height=3).answered(ANSWER) for index, name in enumerate(NAMES)]
ROWS.append(Row(len(NAMES), "bad\n.jpg", ORIGIN).failed(ImageEmpty('no "bytes",\nnone')))


def write(sink: Sink, rows: list[Row] = ROWS) -> None:
    with sink:
        for row in rows:
            sink.write(row)
        sink.commit()


def test_csv_reads_back(tmp_path: Path) -> None:
    write(FileSink(tmp_path / "out.csv"))
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert len(lines) == len(ROWS)
    for row, line in zip(ROWS, lines, strict=True):
        cells = dict(zip(COLUMNS, line, strict=True))
        assert cells["path"] == row.path
        assert cells["id"] == str(row.id)
        if row.label is None:
            assert (cells["label"], cells["probability"], cells["abstained"], cells["top_k"]) == ("", "", "", "")
            assert (cells["error_code"], cells["error_detail"]) == ("image_empty", 'no "bytes",\nnone')
        else:
            assert float(cells["probability"]) == row.probability
            assert cells["abstained"] == "true"
            assert json.loads(cells["top_k"]) == row.flat()["top_k"]
            assert cells["error_code"] == ""


def test_json_lines_read_back(tmp_path: Path) -> None:
    write(FileSink(tmp_path / "out.jsonl"))
    lines = (tmp_path / "out.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == [row.flat() for row in ROWS]


def test_formats_say_the_same() -> None:
    line = csv_line(ROWS[0])
    assert line.endswith("\n")
    assert not line.endswith("\r\n")
    assert json.loads(json_line(ROWS[0]))["probability"] == 0.1 + 0.2


def test_numbers_that_are_none_never_become_bad_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_line(Row(0, "", ORIGIN, probability=float("nan")))


@pytest.mark.parametrize(
    ("name", "chosen", "expected"),
    [
        ("a.csv", None, "csv"),
        ("a.CSV", None, "csv"),
        ("a.jsonl", None, "jsonl"),
        ("a.ndjson", None, "jsonl"),
        ("a.csv", "jsonl", "jsonl"),
        ("a", "csv", "csv"),
    ],
)
def test_format(name: str, chosen: str | None, expected: str) -> None:
    assert format_of(Path(name), chosen) == expected


def test_unknown_format() -> None:
    with pytest.raises(OutputUnwritable, match=r"the ending of a\.txt names no known format; choose one of csv, jsonl"):
        FileSink(Path("a.txt"))
    with pytest.raises(OutputUnwritable, match="format 'xml' names no known format"):
        StreamSink("xml")
    assert FORMATS == ("csv", "jsonl")


def test_file_has_its_name_only_when_whole(tmp_path: Path) -> None:
    path, part = tmp_path / "out.csv", tmp_path / "out.csv.part"
    with FileSink(path) as sink:
        sink.write(ROWS[0])
        assert (path.exists(), part.exists(), sink.place) == (False, True, str(part))
        # Rows are with the operating system, so that kill -9 does not take them.
        assert csv_line(ROWS[0]) in part.read_text()
        sink.commit()
    assert (path.exists(), part.exists(), sink.place) == (True, False, str(path))


def test_unfinished_rows_are_kept(tmp_path: Path) -> None:
    with FileSink(tmp_path / "out.csv") as sink:
        sink.write(ROWS[0])
    assert sink.place == str(tmp_path / "out.csv.part")
    assert (tmp_path / "out.csv.part").read_text().count("\n") == 2
    assert not (tmp_path / "out.csv").exists()


def test_part_without_rows_is_removed(tmp_path: Path) -> None:
    with FileSink(tmp_path / "out.csv"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("precious")
    with pytest.raises(OutputUnwritable, match=r"out\.csv exists already; choose another output or allow overwriting"):
        FileSink(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "precious"


def test_output_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with FileSink(tmp_path / "out.csv") as sink:
        sink.write(ROWS[0])
        (tmp_path / "out.csv").write_text("precious")
        with pytest.raises(OutputUnwritable, match="exists already"):
            sink.commit()
    assert (tmp_path / "out.csv").read_text() == "precious"
    assert (tmp_path / "out.csv.part").exists()


def test_rows_of_an_interrupted_run_are_refused_too(tmp_path: Path) -> None:
    (tmp_path / "out.csv.part").write_text("precious")
    with pytest.raises(OutputUnwritable, match=r"out\.csv\.part holds the rows of a run that was interrupted"):
        FileSink(tmp_path / "out.csv")


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    first, second = FileSink(tmp_path / "out.csv"), FileSink(tmp_path / "out.csv")
    with first, pytest.raises(OutputUnwritable, match="still going on"), second:
        pass


def test_overwriting(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("old")
    (tmp_path / "out.csv.part").write_text("old" * 10_000)
    with FileSink(tmp_path / "out.csv", overwrite=True) as sink:
        sink.write(ROWS[0])
        assert (tmp_path / "out.csv").read_text() == "old"
        sink.commit()
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert "old" not in (tmp_path / "out.csv").read_text()


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(
        OutputUnwritable, match=r"cannot be written \(No such file or directory\); choose another place"
    ):
        write(FileSink(tmp_path / "missing" / "out.csv"))


def test_full_disk_keeps_whole_rows(tmp_path: Path) -> None:
    size = len(",".join(COLUMNS)) + 1 + 2 * len(csv_line(ROWS[0])) + 10
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with FileSink(tmp_path / "out.csv") as sink:
        sink.write(ROWS[0])
        sink.write(ROWS[0])
        # A file size limit cuts a row in the middle, as a full disk does.
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(
                OutputUnwritable, match=r"cannot be written any further .*the 2 rows so far are in .*part"
            ):
                sink.write(ROWS[0])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
    assert (tmp_path / "out.csv.part").read_text() == ",".join(COLUMNS) + "\n" + 2 * csv_line(ROWS[0])


def test_disk_that_fails_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OutputUnwritable, match=r"Input/output error.*the 11 rows so far are in"):
        write(FileSink(tmp_path / "out.csv"))
    assert not (tmp_path / "out.csv").exists()
    assert len((tmp_path / "out.csv.part").read_text()) > 1000


def test_file_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append((tmp_path / "out.csv").exists())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write(FileSink(tmp_path / "out.csv"))
    assert synced == [False, True]


def test_small_writes_add_up(tmp_path: Path) -> None:
    class Slow(io.FileIO):
        def write(self, data: object, /) -> int:
            return super().write(bytes(memoryview(data)[:7]))  # type: ignore[arg-type]

    with Slow(tmp_path / "x", "wb") as file:
        sinks._write_all(file, b"a row that is longer than seven bytes")
    assert (tmp_path / "x").read_bytes() == b"a row that is longer than seven bytes"


def test_stream() -> None:
    stream = io.BytesIO()
    write(StreamSink("jsonl", stream))
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [row.flat() for row in ROWS]
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
