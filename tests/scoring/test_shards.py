"""Tar shards: every picture once, in the shard's order; a shard that is cut says so."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import random
import tarfile
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pytest

from inference.classifier import Classifier
from inference.errors import DataInvalid, ImageError, ImageTruncated, ImageUnreadable, SourceGone
from scoring.local import LocalEngine
from scoring.scorer import Scorer
from scoring.shards import Shard

MEMBERS = {f"{n:03}.{ending}": f"{n}.{ending}".encode() * 400 for n in range(6) for ending in ("jpg", "cls", "json")}
PICTURES = [name for name in MEMBERS if name.endswith("jpg")]
KINDS = [("tar", "w"), ("tar.gz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")]


def save(path: Path, mode: str = "w", members: dict[str, bytes] = MEMBERS, format: int = tarfile.PAX_FORMAT) -> Path:  # noqa: A002
    with tarfile.open(path, mode, format=format) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("ending", "mode"), KINDS)
def test_pictures_in_order(tmp_path: Path, ending: str, mode: str) -> None:
    shard = Shard(str(save(tmp_path / f"s.{ending}", mode)))
    items = list(shard)
    assert [item.id for item in items] == list(range(6))
    assert [item.path for item in items] == [f"{tmp_path}/s.{ending}/{name}" for name in PICTURES]
    assert [item.read() for item in items] == [MEMBERS[name] for name in PICTURES]
    assert [item.stamp() for item in shard] == [item.stamp() for item in items]
    assert shard.count() is None


@pytest.mark.parametrize(("ending", "mode"), KINDS)
def test_other_processes_can_read_them(tmp_path: Path, ending: str, mode: str) -> None:
    for item in pickle.loads(pickle.dumps(list(Shard(str(save(tmp_path / f"s.{ending}", mode)))))):
        assert item.read() in MEMBERS.values()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names(tmp_path: Path, format: int) -> None:  # noqa: A002
    names = ["./a/b.jpg", "caf\udce9.jpg", "two\nlines.jpg", "-rf.PNG", "é.jpeg"]
    if format != tarfile.USTAR_FORMAT:
        names.append("long/" * 60 + "x.jpg")
    shard = Shard(str(save(tmp_path / "s.tar", members=dict.fromkeys(names, b"x"), format=format)))
    shown = [item.path.removeprefix(f"{tmp_path}/s.tar/") for item in shard]
    assert shown == [name.replace("\udce9", "\\xe9") for name in names]
    assert [item.read() for item in shard] == [b"x"] * len(names)


def test_remote_shard(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/shards/s.tar", save(tmp_path / "s.tar").read_bytes())
    items = list(Shard("memory://shards/s.tar"))
    assert [item.read() for item in items] == [MEMBERS[name] for name in PICTURES]
    assert items[0].path == "memory://shards/s.tar/000.jpg"


def outcome(item: Any) -> str:
    try:
        return str(item.read()[:5].decode())
    except ImageError as error:
        return error.code


def test_tar_cut_at_every_block(tmp_path: Path) -> None:
    whole = save(tmp_path / "s.tar").read_bytes()
    end = whole.rindex(b"5.json") + 6
    seen = set()
    for size in range(512, end, 512):
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        *items, last = Shard(str(tmp_path / "cut.tar"))
        # Whatever was before the cut is there, what the cut took is told once.
        outcomes = [outcome(item) for item in items]
        good = [each for each in outcomes if each != "image_truncated"]
        assert good == [MEMBERS[name][:5].decode() for name in PICTURES[: len(good)]]
        assert len(outcomes) - len(good) <= 1
        with pytest.raises(ImageUnreadable, match=r"cut\.tar is cut off or damaged after .*; copy it again"):
            last.read()
        seen.add(len(good))
    assert seen == set(range(7))


# Half a bzip2 file this small holds no whole block, so nothing at all.
@pytest.mark.parametrize(("ending", "mode"), [kind for kind in KINDS if kind[0] != "tar.bz2"])
def test_shard_cut_in_half(tmp_path: Path, ending: str, mode: str) -> None:
    members = {f"{n}.jpg": random.Random(n).randbytes(9000) for n in range(6)}
    path = save(tmp_path / f"s.{ending}", mode, members)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *items, last = Shard(str(path))
    assert items
    for item, data in zip(items, members.values(), strict=False):
        try:
            assert item.read() == data
        except ImageError:
            assert item is items[-1]
    assert outcome(last) == "image_unreadable"


@pytest.mark.parametrize(("ending", "mode"), KINDS)
def test_joined_archives_are_told(tmp_path: Path, ending: str, mode: str) -> None:
    """Of `cat a.tar b.tar` the second would be lost in silence: tar itself ends with the first."""
    one = save(tmp_path / f"a.{ending}", mode).read_bytes()
    (tmp_path / f"two.{ending}").write_bytes(one * 2)
    *items, last = Shard(str(tmp_path / f"two.{ending}"))
    assert [item.read() for item in items] == [MEMBERS[name] for name in PICTURES]
    with pytest.raises(
        ImageUnreadable, match=r"after 005\.json \(it goes on behind its end; archives that were joined"
    ):
        last.read()


@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_compressed_in_pieces(tmp_path: Path, ending: str, compress: Callable[[bytes], bytes]) -> None:
    """As bgzip and parallel compressors write: one archive, of several compressed pieces."""
    content = save(tmp_path / "s.tar").read_bytes()
    pieces = [compress(content[begin : begin + 3000]) for begin in range(0, len(content), 3000)]
    (tmp_path / f"s.tar.{ending}").write_bytes(b"".join(pieces))
    items = list(Shard(str(tmp_path / f"s.tar.{ending}")))
    assert [item.read() for item in items] == [MEMBERS[name] for name in PICTURES]


def test_lzma_from_before_xz(tmp_path: Path) -> None:
    content = save(tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar.xz").write_bytes(lzma.compress(content, lzma.FORMAT_ALONE))
    assert [item.read() for item in Shard(str(tmp_path / "s.tar.xz"))] == [MEMBERS[name] for name in PICTURES]


def test_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.tar")
    with pytest.raises(DataInvalid, match="is a pipe, and would be read twice"):
        Shard(str(tmp_path / "s.tar"))


def test_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    whole = bytearray(save(tmp_path / "s.tar").read_bytes())
    place = whole.index(b"003.jpg")
    whole[place : place + 200] = b"#" * 200
    (tmp_path / "s.tar").write_bytes(whole)
    *items, last = Shard(str(tmp_path / "s.tar"))
    assert [outcome(item) for item in items] == [MEMBERS[name][:5].decode() for name in PICTURES[:3]]
    assert outcome(last) == "image_unreadable"


def test_links_are_told(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    (item,) = Shard(str(tmp_path / "s.tar"))
    with pytest.raises(ImageUnreadable, match=r"a\.jpg is no regular file but a link or folder"):
        item.read()


@pytest.mark.parametrize(
    ("name", "content"), [("s.tar", b"no tar" * 200), ("s.tar.gz", b"\x1f\x8bgarbage"), ("s.tar", b"")]
)
def test_what_is_no_tar(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataInvalid, match="is no tar file that can be read"):
        Shard(str(tmp_path / name))
    with pytest.raises(DataInvalid, match="cannot be read"):
        Shard(str(tmp_path / "missing.tar"))


def test_shard_that_changed_or_went_away(tmp_path: Path) -> None:
    path = save(tmp_path / "s.tar")
    first = next(iter(Shard(str(path))))
    path.write_bytes(path.read_bytes() + bytes(512))
    assert next(iter(Shard(str(path)))).stamp() != first.stamp()
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ImageTruncated):
        first.read()
    path.unlink()
    with pytest.raises(SourceGone, match=r"s\.tar cannot be reached any more \(no such file\); bring it back"):
        first.read()


def test_shards_are_scored(tmp_path: Path, classifier: Classifier, picture: Callable[..., bytes]) -> None:
    save(tmp_path / "s.tar.gz", "w:gz", {"a.jpg": picture(), "a.cls": b"0", "b.png": b"", "c.jpg": picture()})
    rows = list(LocalEngine(Scorer(classifier)).rows(Shard(str(tmp_path / "s.tar.gz"))))
    assert [row.label or row.error_code for row in rows] == ["red", "image_empty", "red"]


def test_no_member_is_kept(tmp_path: Path) -> None:
    import gc

    shard = Shard(str(save(tmp_path / "s.tar", members={f"{n}.jpg": b"x" for n in range(500)})))
    # Not isinstance: asking every object for its class makes some of PyTorch's warn, once another test imported it.
    counts = [sum(type(each) is tarfile.TarInfo for each in gc.get_objects()) for item in shard if item.id % 100 == 99]
    assert max(counts) <= min(counts) + 2


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def pax(**records: str) -> bytes:
    member = tarfile.TarInfo("x.jpg")
    member.pax_headers, member.size = records, 1
    return member.tobuf(tarfile.PAX_FORMAT) + b"x".ljust(512, b"\0")


LONG_NAME = header("././@LongLink", 1, tarfile.GNUTYPE_LONGNAME) + b"x".ljust(512, b"\0")
GOOD = header("a.jpg", 1) + b"a".ljust(512, b"\0")
HOSTILE = {
    "sparse map without numbers": pax(**{"GNU.sparse.map": "a,b", "GNU.sparse.name": "b", "GNU.sparse.size": "1"}),
    "names of names": LONG_NAME * 3000,
    "back to the header": pax(size="-1536"),
    "back and back": pax(size="-2048"),
    "negative": header("b.jpg", -512),
    "beyond every disk": header("b.txt", 2**62),
    "beyond every number": pax(size="1" + "0" * 40, path="b.txt"),
    "a name of 64 MB": header("././@LongLink", 2**26, tarfile.GNUTYPE_LONGNAME) + bytes(2**26),
    "a pax record of 64 MB": header("pax", 2**26, tarfile.XHDTYPE) + bytes(2**26),
}


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.timeout(30)
def test_hostile_headers_end_the_shard_with_a_row(tmp_path: Path, kind: str, ending: str) -> None:
    whole = GOOD + HOSTILE[kind] + GOOD + bytes(1024)
    path = tmp_path / f"s.{ending}"
    path.write_bytes(gzip.compress(whole, 1) if ending == "tar.gz" else whole)
    shard = Shard(str(path))
    tracemalloc.start()
    try:
        first, *_, last = islice(shard, 10)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()
    assert (first.read(), last.path) == (b"a", str(path))
    with pytest.raises(ImageUnreadable, match="is cut off or damaged after"):
        last.read()


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.timeout(30)
def test_hostile_beginnings_end(tmp_path: Path, kind: str) -> None:
    (tmp_path / "s.tar").write_bytes(HOSTILE[kind] + bytes(1024))
    with suppress(DataInvalid):
        assert len(list(islice(Shard(str(tmp_path / "s.tar")), 10))) < 10
