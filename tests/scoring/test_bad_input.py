"""Whatever a folder or table holds, every input is one row with its own code, and reads back from every format."""

import csv
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from inference.classifier import Classifier
from scoring.arguments import source_of
from scoring.files import Files
from scoring.local import LocalEngine
from scoring.run import score
from scoring.scorer import Scorer
from scoring.sinks import FileSink
from scoring.summary import Summary

NAMES = [
    *("two\nlines.jpg", "cr\r\n.jpg", "tab\t.jpg", "\x01.jpg", " .jpg", 'a "quoted", one.jpg', "it's.jpg", "a\\b.jpg"),
    *("-rf.jpg", "--help.jpg", "=1+1.jpg", "100%.jpg", "日本 é.jpg", "caf\udce9.jpg", "\udcff\udcfe.jpg"),
]


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file]


def scored(classifier: Classifier, source: Any, output: Path) -> Summary:
    return score(source, LocalEngine(Scorer(classifier)), FileSink(output))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_odd_names(classifier: Classifier, picture: Callable[..., bytes], tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(picture(size=(40, 40)))
    summary = scored(classifier, Files([folder]), tmp_path / f"out.{kind}")
    assert (summary.rows, summary.answered) == (len(NAMES), len(NAMES))
    shown = [name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in NAMES]
    assert sorted(row["path"] for row in rows_of(tmp_path / f"out.{kind}")) == sorted(
        f"{folder}/{each}" for each in shown
    )


def test_every_damage_has_its_code(classifier: Classifier, picture: Callable[..., bytes], tmp_path: Path) -> None:
    good = picture()
    contents = {
        "a.jpg": (good, None),
        "b.jpg": (good[:200], "image_truncated"),
        "c.jpg": (b"", "image_empty"),
        "d.jpg": (b"plain text", "image_unsupported"),
        "e.png": (picture(kind="PNG")[:-40], "image_truncated"),
        "f.png": (good, None),  # the content decides, not the ending
        "g.gif": (bytes(1000), "image_unsupported"),
        "h.jpg": (good + b"more", None),
    }
    for name, (data, _) in contents.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "i.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "j.jpg")
    (tmp_path / "k.jpg").symlink_to("a.jpg")
    summary = scored(classifier, Files([tmp_path]), tmp_path / "out.jsonl")
    codes = [row["error_code"] for row in rows_of(tmp_path / "out.jsonl")]
    assert codes == [code for _, code in contents.values()] + ["image_unreadable", "image_unreadable", None]
    assert summary.rows == 11
    assert all(row["error_detail"] for row in rows_of(tmp_path / "out.jsonl") if row["error_code"])


def test_the_same_file_twice_is_two_rows(classifier: Classifier, picture: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture())
    (tmp_path / "t.csv").write_text("path\na.jpg\na.jpg\n")
    source = source_of([str(tmp_path / "a.jpg"), str(tmp_path / "t.csv"), str(tmp_path)], column="path")
    assert scored(classifier, source, tmp_path / "out.jsonl").rows == 4
    rows = rows_of(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == [0, 1, 2, 3]
    assert len({(row["path"], row["label"], row["probability"]) for row in rows}) == 1


def test_a_hundred_thousand_unreadable_files(classifier: Classifier, tmp_path: Path) -> None:
    """In bounded memory and without work that grows with the square."""
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(100_000):
        (folder / f"{index}.jpg").symlink_to("nowhere")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    summary = scored(classifier, Files([folder]), tmp_path / "out.csv")
    assert summary.errors == {"image_unreadable": 100_000}
    assert summary.exit_status == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - used < 120
    with (tmp_path / "out.csv").open("rb") as file:
        assert sum(1 for _ in file) == 100_001
    for index in range(100_000):
        (folder / f"{index}.jpg").unlink()
