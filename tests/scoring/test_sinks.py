"""Output is whole or plainly unfinished, and reads back as what was written."""

import csv
import fcntl
import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from inference.errors import ImageEmpty, OutputUnwritable
from inference.prediction import Candidate, Prediction
from scoring.formats import FORMATS, csv_line, format_of, json_line
from scoring.rows import COLUMNS, Origin, Row
from scoring.sinks import FileSink, Sink, StreamSink

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


def write(
    sink: Sink,
    rows: list[Row] = ROWS,
    columns: tuple[str, ...] = COLUMNS,
    fingerprint: dict[str, object] = {},  # noqa: B006 – only read
) -> None:
    with sink:
        sink.begin(fingerprint, columns)
        for row in rows:
            sink.write(row)
        sink.commit_part("")
        sink.commit()


def flat(row: Row) -> dict[str, object]:
    return {name: row.flat()[name] for name in COLUMNS}


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
    assert [json.loads(line) for line in lines] == [flat(row) for row in ROWS]


def test_formats_say_the_same() -> None:
    line = csv_line(ROWS[0], COLUMNS)
    assert line.endswith("\n")
    assert not line.endswith("\r\n")
    assert json.loads(json_line(ROWS[0], COLUMNS))["probability"] == 0.1 + 0.2


def test_numbers_that_are_none_never_become_bad_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_line(Row(0, "", ORIGIN, probability=float("nan")), COLUMNS)


@pytest.mark.parametrize(
    ("name", "chosen", "expected"),
    [
        ("a.csv", None, "csv"),
        ("a.CSV", None, "csv"),
        ("a.jsonl", None, "jsonl"),
        ("a.ndjson", None, "jsonl"),
        ("a.csv", "jsonl", "jsonl"),
        ("a", "csv", "csv"),
        ("a.parquet", None, "parquet"),
    ],
)
def test_format(name: str, chosen: str | None, expected: str) -> None:
    assert format_of(Path(name), chosen) == expected


def test_unknown_format() -> None:
    with pytest.raises(
        OutputUnwritable, match=r"the ending of a\.txt names no known format; choose one of csv, jsonl, parquet"
    ):
        FileSink(Path("a.txt"))
    with pytest.raises(OutputUnwritable, match="format 'xml' names no known format"):
        StreamSink("xml")
    assert FORMATS == ("csv", "jsonl", "parquet")


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


# --- Parquet ----------------------------------------------------------------------------------------------------------

ALL = (*COLUMNS, "content_hash", "logits", "features")


def test_parquet_is_typed_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    full = replace(ROWS[0], content_hash="sha256:1", logits=(0.5, -1.25), features=(1.0, 2.0, 3.0))
    write(FileSink(path), [full, *ROWS[1:]], ALL, {"model": "colours/1", "model_digest": "sha256:0"})
    table = pq.read_table(path)
    assert {field.name: str(field.type) for field in table.schema} == {
        "id": "int64",
        "path": "string",
        "label": "string",
        "probability": "double",
        "abstained": "bool",
        "top_k": "list<element: struct<label: string, class_index: int32, probability: double>>",
        "error_code": "string",
        "error_detail": "string",
        "width": "int32",
        "height": "int32",
        "model_name": "string",
        "model_version": "string",
        "model_digest": "string",
        "runtime": "string",
        "device": "string",
        "content_hash": "string",
        "logits": "list<element: float>",
        "features": "list<element: float>",
    }
    rows = table.to_pylist()
    assert [row["path"] for row in rows] == [row.path for row in ROWS]
    assert rows[0] == {**full.flat(), "logits": [0.5, -1.25], "features": [1.0, 2.0, 3.0]}
    assert rows[-1] == ROWS[-1].flat()
    said = json.loads(table.schema.metadata[b"petalpaw"])
    assert said == {"format": "parquet", "model": "colours/1", "model_digest": "sha256:0"}


def test_row_groups_do_not_depend_on_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoring.parquet.ROW_GROUP", 4)
    written = []
    for name, sizes in (("a.parquet", [11]), ("b.parquet", [1, 1, 5, 4]), ("c.parquet", [2, 9])):
        rows = iter(ROWS)
        with FileSink(tmp_path / name) as sink:
            sink.begin({}, COLUMNS)
            for size in sizes:
                for row in islice(rows, size):
                    sink.write(row)
                sink.commit_part("")
            sink.commit()
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] == written[2]
    groups = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert [groups.row_group(index).num_rows for index in range(groups.num_row_groups)] == [4, 4, 3]


def test_parquet_without_its_package_names_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path; from scoring.sinks import FileSink\n"
        "from inference.errors import PackageMissing\n"
        "try: FileSink(Path(sys.argv[1])).begin({}, ['id'])\n"
        "except PackageMissing as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out.parquet")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "install petalpaw[tables]" in done.stdout


def test_parquet_does_without_pandas() -> None:
    """Which takes a second to import and as much memory as the model."""
    code = (
        "import sys\nfrom scoring.parquet import ParquetFormat\nfrom scoring.rows import COLUMNS, Origin, Row\n"
        "assert ParquetFormat(COLUMNS).encode([Row(0, 'a', Origin('', '', '', '', ''))]).startswith(b'PAR1')\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def test_parquet_cannot_be_streamed() -> None:
    with pytest.raises(OutputUnwritable, match="name a file with --output"):
        StreamSink("parquet")


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
