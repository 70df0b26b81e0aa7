"""Parquet is typed, the same whatever the parts were, and optional."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from inference.errors import OutputUnwritable
from scoring.rows import COLUMNS
from scoring.sinks import FileSink, StreamSink
from tests.scoring.rows import ROWS, write

ROOT = Path(__file__).parents[2]

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
