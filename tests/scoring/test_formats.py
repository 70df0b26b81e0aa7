"""Every format reads back as what was written."""

import csv
import json
from pathlib import Path

import pytest

from inference.errors import OutputUnwritable
from scoring.formats import FORMATS, csv_line, format_of, json_line
from scoring.rows import COLUMNS, Row
from scoring.sinks import FileSink, StreamSink
from tests.scoring.rows import ORIGIN, ROWS, flat, write

ROOT = Path(__file__).parents[2]


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
