"""Tables: paths, addresses and pictures in a column, one input per row whatever the row holds."""

import base64
import csv
import io
import json
import os
import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference.classifier import Classifier
from inference.errors import DataInvalid, ImageUnreadable, SourceGone
from scoring import tables
from scoring.local import LocalEngine
from scoring.scorer import Scorer
from scoring.tables import Table

Rows = list[dict[str, Any]]


def save(path: Path, rows: Rows) -> Path:
    """The rows as a table of the kind that the path's ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(text.getvalue(), newline="")
    return path


def problem(item: Any) -> str:
    with pytest.raises(ImageUnreadable) as raised:
        item.read()
    return raised.value.detail


KINDS = [".csv", ".tsv", ".jsonl", ".parquet"]
NAMES = ["b.jpg", "two\nlines.jpg", '"quoted".jpg', "-rf.jpg", "é 日本.jpg", "b.jpg", "c,d.jpg", "sub/a.jpg"]


@pytest.mark.parametrize("kind", KINDS)
def test_paths_begin_at_the_tables_folder(tmp_path: Path, kind: str) -> None:
    for name in NAMES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    table = Table(str(save(tmp_path / "in" / f"t{kind}", [{"label": 1, "path": name} for name in NAMES])), "path")
    items = list(table)
    assert [item.id for item in items] == list(range(8))
    assert [item.read().decode() for item in items] == NAMES
    assert [item.path for item in items] == [f"{tmp_path}/in/{name}" for name in NAMES]
    assert table.count() == 8
    assert list(table) == items
    assert table.description == f"{tmp_path}/in/t{kind}[path]"


def test_base_says_where_relative_paths_begin(tmp_path: Path) -> None:
    absolute = str(tmp_path / "x.jpg")
    path = str(save(tmp_path / "t.csv", [{"path": "a.jpg"}, {"path": absolute}]))
    assert [item.path for item in Table(path, "path", base="/elsewhere")] == ["/elsewhere/a.jpg", absolute]
    assert next(item.path for item in Table(path, "path", base="s3://bucket/x/")) == "s3://bucket/x/a.jpg"


def test_addresses_and_remote_tables() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/tables/in/a.jpg", b"a")
    memory.pipe_file("/tables/in/t.csv", b"path\na.jpg\nmemory://tables/in/a.jpg\nmemory://tables/in/gone.jpg\n")
    table = Table("memory://tables/in/t.csv", "path")
    first, second, third = table
    assert (first.path, first.read(), second.read()) == ("memory://tables/in/a.jpg", b"a", b"a")
    assert "cannot be read (no such file)" in problem(third)
    memory.pipe_file("/tables/in/t.parquet", _parquet_bytes([{"image": b"x"}]))
    assert [item.read() for item in Table("memory://tables/in/t.parquet", "image")] == [b"x"]


def _parquet_bytes(rows: Rows) -> bytes:
    target = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), target)
    return target.getvalue()


def test_pictures_in_parquet(tmp_path: Path, classifier: Classifier, picture: Callable[..., bytes]) -> None:
    rows = [
        {"image": {"bytes": picture(), "path": "red.jpg"}, "plain": picture()},
        {"image": {"bytes": None, "path": "gone.jpg"}, "plain": b""},
        {"image": None, "plain": None},
    ]
    path = str(save(tmp_path / "t.parquet", rows))
    found = list(LocalEngine(Scorer(classifier)).rows(Table(path, "image")))
    assert [row.label or row.error_code for row in found] == ["red", "image_unreadable", "image_unreadable"]
    assert [row.path for row in found] == ["red.jpg", f"{tmp_path}/gone.jpg", f"{path}#2"]
    plain = list(LocalEngine(Scorer(classifier)).rows(Table(path, "plain")))
    assert [row.label for row in plain] == ["red", None, None]
    assert plain[1].error_detail == f"row 1 of {path} holds no path or picture in 'plain'"


def test_pictures_in_text(tmp_path: Path, picture: Callable[..., bytes]) -> None:
    good = "data:image/jpeg;base64," + base64.b64encode(picture()).decode()
    path = str(save(tmp_path / "t.csv", [{"image": good}, {"image": good[:-3] + "!"}, {"image": "data:text/plain,x"}]))
    first, second, third = Table(path, "image")
    assert first.read() == picture()
    assert "cannot be decoded; encode the picture as base64" in problem(second)
    assert "cannot be decoded" in problem(third)


def test_equal_rows_have_stamps_that_tell_changes(tmp_path: Path) -> None:
    path = str(save(tmp_path / "t.parquet", [{"image": b"x"}, {"image": b"y"}]))
    before = [item.stamp() for item in Table(path, "image")]
    assert before == [item.stamp() for item in Table(path, "image")]
    save(tmp_path / "t.parquet", [{"image": b"x"}, {"image": b"z"}])
    after = [item.stamp() for item in Table(path, "image")]
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfpath,x\r\na.jpg,1\r\n\r\nb.jpg,2\r\n")
    assert [Path(item.path).name for item in Table(str(tmp_path / "t.csv"), "path")] == ["a.jpg", "b.jpg"]
    (tmp_path / "t.jsonl").write_bytes(b'\xef\xbb\xbf{"path": "a.jpg"}\n\n')
    assert Table(str(tmp_path / "t.jsonl"), "path").count() == 1


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_bytes("\ufeffpath\r\na.jpg\r\n".encode(encoding))
    with pytest.raises(DataInvalid, match=r"t\.csv is UTF-16; save it as UTF-8"):
        Table(str(tmp_path / "t.csv"), "path")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.jpg").write_bytes(b"x")
    (tmp_path / "t.csv").write_bytes(b"path\ncaf\xe9.jpg\n")
    (item,) = Table(str(tmp_path / "t.csv"), "path")
    assert (item.read(), item.path) == (b"x", f"{tmp_path}/caf\\xe9.jpg")
    item.stamp().encode("utf-8", "surrogatepass")


def test_rows_without_a_value(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,path\n1\n2,\n3,a.jpg,too many\n")
    short, empty, long = Table(str(tmp_path / "t.csv"), "path")
    assert problem(short) == f"row 0 of {tmp_path}/t.csv holds no path or picture in 'path'"
    assert "holds no path" in problem(empty)
    assert long.path == f"{tmp_path}/a.jpg"
    (tmp_path / "t.csv").write_text('path\na.jpg\n\n""\nb.jpg\n')
    assert "holds no path" in problem(list(Table(str(tmp_path / "t.csv"), "path"))[1])
    assert Table(str(tmp_path / "t.csv"), "path").count() == 3
    (tmp_path / "t.jsonl").write_text('{"path": "a.jpg"}\n{"path": 3}\nnot json\n[1]\n{"x": 1}\n')
    details = [problem(item) for item in list(Table(str(tmp_path / "t.jsonl"), "path"))[1:]]
    assert ["is no JSON object" in detail for detail in details] == [False, True, True, False]


def test_folder_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    """A disk that is unmounted; a folder that never was there, or a file less, is a row."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"a")
    names = [{"path": "in/a.jpg"}, {"path": "in/gone.jpg"}, {"path": "never/a.jpg"}, {"path": "in/a.jpg"}]
    items = iter(Table(str(save(tmp_path / "t.csv", names)), "path"))
    first, missing, never = next(items), next(items), next(items)
    assert "cannot be read" in problem(missing)
    assert "cannot be read" in problem(never)
    (tmp_path / "in").rename(tmp_path / "away")
    for item in (first, next(items)):
        with pytest.raises(SourceGone, match="in is gone since the run began"):
            item.read()


@pytest.mark.parametrize("kind", [".csv", ".tsv"])
def test_stray_quote_swallows_no_rows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"t{kind}"
    path.write_text('path\na.jpg\n"b.jpg\nc.jpg\nd.jpg\n')
    with pytest.raises(DataInvalid, match=r"the row that begins in line 3 cannot be read \(unexpected end of data\)"):
        Table(str(path), "path").count()
    path.write_text('path\n"two\nlines.jpg"\n"b.jpg\nc.jpg\n"d.jpg\n')
    with pytest.raises(DataInvalid, match="the row that begins in line 4 cannot be read"):
        list(Table(str(path), "path"))
    path.write_text('path\nb"c.jpg\nd.jpg\n')
    assert Table(str(path), "path").count() == 2


def endless(path: Path, first: bytes, last: bytes) -> Path:
    """A table with a line of 128 MiB."""
    path.write_bytes(first)
    os.truncate(path, 2**27)
    with path.open("ab") as file:
        file.write(last)
    return path


@pytest.fixture
def in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With a row of a million characters at most."""
    monkeypatch.setattr(tables, "MAX_ROW", 1_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


@pytest.mark.usefixtures("in_bounded_memory")
def test_line_that_is_too_long_is_a_row(tmp_path: Path) -> None:
    path = str(endless(tmp_path / "t.jsonl", b'{"path": "a.jpg"}\n', b'\r\n{"path": "b.jpg"}\n'))
    table = Table(path, "path")
    first, long, last = table
    assert (first.path, last.path, table.count()) == (f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg", 3)
    assert problem(long).startswith(f"row 1 of {path} is longer than 67,108,864 characters; keep its picture in a file")
    with pytest.raises(DataInvalid, match="it has none"):
        Table(str(endless(tmp_path / "long.jsonl", b"", b'\n{"path": "b.jpg"}\n')), "path")


@pytest.mark.usefixtures("in_bounded_memory")
@pytest.mark.parametrize("kind", [".csv", ".tsv"])
def test_row_that_is_too_long_ends_the_run_before_it_begins(tmp_path: Path, kind: str) -> None:
    path = str(endless(tmp_path / f"t{kind}", b"path\na.jpg\n", b"\nb.jpg\n"))
    said = r"the row that begins in line 3 cannot be read \(it is longer than 1,000,000 characters\)"
    with pytest.raises(DataInvalid, match=said):
        Table(path, "path").count()
    # One that has many lines, none of them long.
    Path(path).write_text("path\na.jpg\n" + ('"\n"' + ("," if kind == ".csv" else "\t")) * 300_000)
    with pytest.raises(DataInvalid, match=said):
        Table(path, "path").count()


def test_rows_have_room_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROW", 20)
    for name, line in {"t.csv": "{:019}\n", "t.jsonl": '{{"path": "{:07}"}}\n'}.items():
        (tmp_path / name).write_text(("path\n" if name == "t.csv" else "") + "".join(map(line.format, range(50))))
        items = list(Table(str(tmp_path / name), "path"))
        assert [int(Path(item.path).name) for item in items] == list(range(50))


def text_column(values: list[bytes]) -> pa.Array:
    """Text as Spark and others write it: without a look whether it is UTF-8."""
    binary = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), binary.buffers())


def test_parquet_text_that_is_not_utf_8(tmp_path: Path) -> None:
    for name in (b"caf\xe9.jpg", b"b.jpg"):
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    column = text_column([b"caf\xe9.jpg", b"b.jpg"])
    struct = pa.StructArray.from_arrays([column, pa.nulls(2, pa.binary())], names=["path", "bytes"])
    pq.write_table(pa.table({"plain": column, "struct": struct}), tmp_path / "t.parquet")
    for name in ("plain", "struct"):
        items = list(Table(str(tmp_path / "t.parquet"), name))
        assert [item.read() for item in items] == [b"caf\xe9.jpg", b"b.jpg"]
    assert "caf\\xe9.jpg" in Table(str(tmp_path / "t.parquet"), "plain").__iter__().__next__().path


@pytest.mark.parametrize("kind", KINDS)
def test_missing_column_names_those_that_there_are(tmp_path: Path, kind: str) -> None:
    path = str(save(tmp_path / f"t{kind}", [{"file": "a.jpg", "label": "x"}]))
    with pytest.raises(DataInvalid, match=r"it has no column 'path'; it has file, label"):
        Table(path, "path")
    with pytest.raises(DataInvalid, match=r"name the column of the pictures with --column; it has file, label"):
        Table(path, None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "it has none"),
        ("t.jsonl", b"garbage\n", "it has none"),
        ("t.parquet", b"PAR1 garbage PAR1", "damaged or no Parquet file"),
        ("t.parquet", b"", "damaged or no Parquet file"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataInvalid, match=message):
        Table(str(tmp_path / name), "path")


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"t\.csv cannot be read \(no such file\); check the path or address"):
        Table(str(tmp_path / "t.csv"), "path")
    with pytest.raises(DataInvalid, match="cannot be read"):
        Table("memory://nowhere/t.csv", "path")


def test_parquet_cut_in_the_middle_ends_with_words(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows = [{"image": random.Random(n).randbytes(5000)} for n in range(90)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=30)
    whole = path.read_bytes()
    path.write_bytes(whole[:200_000] + bytes(200_000) + whole[400_000:])
    with pytest.raises(DataInvalid, match=r"is damaged or no Parquet file \([^\n]*\); write it again"):
        list(Table(str(path), "image"))
