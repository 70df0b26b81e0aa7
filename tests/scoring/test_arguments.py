"""What a command line names becomes one source, in its order."""

import io
import os
import tarfile
from pathlib import Path

import fsspec
import pytest

from inference.errors import DataInvalid, ImageUnreadable, OutputUnwritable, ParameterInvalid
from scoring.arguments import refuse_address, refuse_one_file_twice, source_of
from scoring.files import Files
from scoring.lines import Lines


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a few of everything."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.jpg", "in/b.png", "in/sub/c.jpg", "in/sub/.hidden.jpg", "x.jpg", "[odd].jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    Path("t.csv").write_text("path\nx.jpg\n")
    for name in ("s0.tar", "s1.tar"):
        with tarfile.open(name, "w") as tar:
            tar.add("x.jpg")
    fsspec.filesystem("memory").pipe_file("/args/m.jpg", b"m")
    return tmp_path


def test_everything_in_the_order_of_its_names(here: Path) -> None:
    source = source_of(["x.jpg", "t.csv", "in", "s0.tar", "memory://args/m.jpg", "x.jpg"], column="path")
    items = list(source)
    assert [item.path for item in items] == [
        "x.jpg", "x.jpg", "in/a.jpg", "in/b.png", "in/sub/.hidden.jpg", "in/sub/c.jpg", "s0.tar/x.jpg",
        "memory://args/m.jpg", "x.jpg",
    ]  # fmt: skip
    assert [item.id for item in items] == list(range(9))
    assert all(item.read() for item in items)
    assert source.count() is None
    assert source_of(["x.jpg", "t.csv"], column="path").count() == 2
    assert source.description == "x.jpg, t.csv[path], in, s0.tar, memory://args/m.jpg, x.jpg"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("in/*.jpg", ["in/a.jpg"]),
        ("in/*", ["in/a.jpg", "in/b.png", "in/sub/.hidden.jpg", "in/sub/c.jpg"]),
        ("in/**/*.jpg", ["in/a.jpg", "in/sub/c.jpg"]),
        ("**/*.jpg", ["[odd].jpg", "in/a.jpg", "in/sub/c.jpg", "x.jpg"]),
        ("in/**", ["in/a.jpg", "in/b.png", "in/sub/c.jpg"]),
        ("i?/**/s*/c.*", ["in/sub/c.jpg"]),
        ("in/[ab].*", ["in/a.jpg", "in/b.png"]),
        ("in/sub/.h*", ["in/sub/.hidden.jpg"]),
        ("[odd].jpg", ["[odd].jpg"]),
        ("s?.tar", ["s0.tar/x.jpg", "s1.tar/x.jpg"]),
        ("memory://args/*.jpg", ["memory:///args/m.jpg"]),
    ],
)
def test_patterns(here: Path, pattern: str, found: list[str]) -> None:
    assert [item.path for item in source_of([pattern])] == found


def test_pattern_in_a_loop_of_links_ends(here: Path) -> None:
    for name in ("up", "again", "round"):
        (here / "in" / name).symlink_to("..")
    assert len(list(source_of(["in/**/a.jpg"]))) <= 4


def test_pattern_that_fits_nothing(here: Path) -> None:
    with pytest.raises(DataInvalid, match="no pictures were found in nothing"):
        source_of(["nothing*.jpg"]).count()


def test_sources_that_give_nothing_are_told(here: Path) -> None:
    with pytest.raises(DataInvalid, match=r"gone/\*\.tar cannot be read \(no such file\)"):
        source_of(["x.jpg", "gone/*.tar"])
    *_, last = source_of(["x.jpg", "memory://args/*.gif"])
    with pytest.raises(ImageUnreadable, match=r"memory://args/\*\.gif gave no input; check what it names"):
        last.read()


def test_options_that_nothing_takes(here: Path) -> None:
    with pytest.raises(ParameterInvalid, match="--column and --base belong to a table"):
        source_of(["in"], column="path")
    with pytest.raises(ParameterInvalid, match="--null belongs to paths on standard input"):
        source_of(["in"], null=True)
    with pytest.raises(DataInvalid, match="name the column"):
        source_of(["t.csv"])


def test_addresses_are_not_written_to(here: Path) -> None:
    with pytest.raises(OutputUnwritable, match=r"--output names s3://bucket/o\.csv, an address: .* name a file here"):
        refuse_one_file_twice(["in"], output=Path("s3://bucket/o.csv"), summary=None)
    with pytest.raises(OutputUnwritable, match=r"--summary names gs://bucket/s\.json"):
        refuse_one_file_twice(["in"], output=None, summary=Path("gs://bucket/s.json"))
    Path("odd:").mkdir()
    for name in ("odd:/o.csv", "in/a:/o.csv", "/s3:/o.csv", "C:/o.csv", "o.csv"):
        refuse_address("--output", Path(name))


def test_the_summary_does_not_replace_a_journal(tmp_path: Path) -> None:
    with pytest.raises(ParameterInvalid, match="where --output has its parts"):
        refuse_one_file_twice(
            ["in"], output=tmp_path / "o.csv", summary=tmp_path / "o.csv.parts" / ".." / "o.csv.parts" / "journal.jsonl"
        )
    with pytest.raises(ParameterInvalid, match="where --output has its parts"):
        refuse_one_file_twice(["in"], output=tmp_path / "o.csv", summary=tmp_path / "o.csv.parts")
    refuse_one_file_twice(["in"], output=tmp_path / "o.csv", summary=tmp_path / "parts" / "journal.jsonl")


# --- paths on standard input ------------------------------------------------------------------------------------------


def paths(data: bytes, *, null: bool = False) -> list[str]:
    return [item.path for item in Lines(io.BytesIO(data), null=null)]


def test_lines() -> None:
    assert paths(b"a.jpg\n\nb c.jpg\r\ncaf\xe9.jpg\n-rf.jpg\nlast.jpg") == [
        "a.jpg", "b c.jpg", "caf\\xe9.jpg", "-rf.jpg", "last.jpg",
    ]  # fmt: skip
    assert paths(b"two\nlines.jpg\0cr\r\0", null=True) == ["two\nlines.jpg", "cr\r"]
    assert paths(b"s3://bucket/a.jpg\n") == ["s3://bucket/a.jpg"]
    assert paths(b"") == []


def test_lines_are_read_as_they_come() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as writer:
        items = iter(Lines(stream))
        writer.write(b"a.jpg\nb.j")
        assert next(items).path == "a.jpg"
        writer.write(b"pg\n")
        assert next(items).path == "b.jpg"


def test_lines_across_chunks() -> None:
    names = [f"{index:07}.jpg" for index in range(20_000)]
    assert paths("\n".join(names).encode()) == names


def test_name_that_is_too_long_is_a_row() -> None:
    longest, endless = 2**16 * b"l", 2**24 * b"x"
    first, long, last = Lines(io.BytesIO(longest + b"\r\n" + endless + b"\nb.jpg"))
    assert (len(first.path), last.path) == (2**16, "b.jpg")
    with pytest.raises(ImageUnreadable, match=r"^x{100}… is longer than 65,536 bytes, which no path should be"):
        long.read()


def test_many_names_are_described_shortly(here: Path) -> None:
    assert Files(["x.jpg"] * 1000).description == "x.jpg, x.jpg, x.jpg, x.jpg, x.jpg and 995 more"
