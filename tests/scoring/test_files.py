"""Every file that counts, once, in the same order, whatever it is called and wherever it leads."""

import io
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.errors import DataInvalid, ImageUnreadable, SourceGone
from scoring import files
from scoring.files import FileItem, Files
from scoring.sources import SUFFIXES


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode("utf-8", "surrogateescape"))


def found(*paths: str | Path) -> list[str]:
    return [item.location for item in Files(paths)]


def below(root: Path) -> list[str]:
    return [os.path.relpath(path, root) for path in found(root)]


def test_folders_are_searched_in_byte_order(tmp_path: Path) -> None:
    make(tmp_path, "b.jpg", "a/2.png", "a/10.png", "a/c/x.webp", "Z.jpg", "é.gif", "z.jpg", "a.jpg")
    assert below(tmp_path) == ["Z.jpg", "a/10.png", "a/2.png", "a/c/x.webp", "a.jpg", "b.jpg", "z.jpg", "é.gif"]


def test_order_and_ids_are_stable(tmp_path: Path) -> None:
    make(tmp_path, "b.jpg", "a.jpg")
    source = Files([tmp_path / "b.jpg", tmp_path, tmp_path / "b.jpg"])
    first = list(source)
    assert [item.id for item in first] == [0, 1, 2, 3]
    assert [Path(item.path).name for item in first] == ["b.jpg", "a.jpg", "b.jpg", "b.jpg"]
    assert list(source) == first
    assert source.count() == 4


def test_endings_count_only_inside_folders(tmp_path: Path) -> None:
    pictures = [f"a{suffix}" for suffix in SUFFIXES] + ["b.JPG", "c.Jpeg"]
    make(tmp_path, *pictures, "notes.txt", "jpg", "d.jpg.zip", "README")
    assert sorted(below(tmp_path)) == sorted(pictures)
    assert found(tmp_path / "notes.txt", tmp_path / "README") == [str(tmp_path / "notes.txt"), str(tmp_path / "README")]


ODD_NAMES = [
    "two words.jpg",
    "two\nlines.jpg",
    "-rf.jpg",
    "caf\udce9.jpg",
    '"quoted".jpg',
    "tab\t.jpg",
    "日本.jpg",
    " .jpg",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "in", name)
    (item,) = Files([tmp_path / "in"])
    assert item.read() == os.fsencode(name)
    item.path.encode()
    monkeypatch.chdir(tmp_path / "in")
    (item,) = Files([name])
    assert item.read() == os.fsencode(name)


def test_bytes_that_are_no_text_are_shown(tmp_path: Path) -> None:
    make(tmp_path, "caf\udce9.jpg")
    (item,) = Files([tmp_path])
    assert item.path == f"{tmp_path}/caf\\xe9.jpg"


def test_relative_paths_stay_as_they_were_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "in/a.jpg")
    monkeypatch.chdir(tmp_path)
    assert found("./in", "in/", "in/a.jpg") == ["./in/a.jpg", "in/a.jpg", "in/a.jpg"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    make(tmp_path, "in/a/1.jpg", "in/b/2.jpg")
    (tmp_path / "in" / "a" / "up").symlink_to("..")
    (tmp_path / "in" / "a" / "self").symlink_to(".")
    (tmp_path / "in" / "a" / "b").symlink_to("../b")
    (tmp_path / "in" / "b" / "a").symlink_to("../a")
    assert below(tmp_path / "in") == ["a/1.jpg", "a/b/2.jpg"]


@pytest.mark.timeout(20)
def test_folders_that_lead_to_one_another_are_searched_once(tmp_path: Path) -> None:
    for name in range(12):
        make(tmp_path, f"in/{name}/{name}.jpg")
        for other in range(12):
            if other != name:
                (tmp_path / "in" / str(name) / f"to{other}").symlink_to(f"../{other}")
    items = found(tmp_path / "in")
    assert sorted(Path(each).stem for each in items) == sorted(map(str, range(12)))
    assert found(tmp_path / "in", tmp_path / "in") == items * 2


def test_what_gives_nothing_beside_others_is_an_input(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "empty/notes.txt")
    names = [tmp_path / "a.jpg", tmp_path / "nope" / "*.jpg", tmp_path / "nope[1].jpg", tmp_path / "empty"]
    source = Files(names)
    good, *others = source
    assert good.read() == b"a.jpg"
    assert [item.location for item in others] == list(map(str, names[1:]))
    assert source.count() == 4
    for item in others:
        with pytest.raises(ImageUnreadable, match="gave no picture; check that it is what you mean"):
            item.read()


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/1.jpg", "elsewhere/plain")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cats").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "x.jpg").symlink_to(tmp_path / "elsewhere" / "plain")
    assert below(tmp_path / "in") == ["cats/1.jpg", "x.jpg"]


def test_links_to_nowhere_are_inputs(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    circle, gone = Files([tmp_path])
    with pytest.raises(ImageUnreadable, match=r"gone\.jpg cannot be read \(No such file or directory\); check"):
        gone.read()
    with pytest.raises(ImageUnreadable, match="Too many levels of symbolic links"):
        circle.read()


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A picture in folders deeper than Python's recursion limit, from the current folder."""
    monkeypatch.chdir(tmp_path)
    part = Path(*["d"] * 200)
    for _ in range(6):
        part.mkdir(parents=True)
        os.chdir(part)
    Path("x.jpg").touch()
    os.chdir(tmp_path)
    yield "/".join(["d"] * 1200 + ["x.jpg"])
    # pytest's own clean-up would hit the recursion limit.
    subprocess.run(["rm", "-rf", "d"], check=True)


def test_deep_folders(deep: str) -> None:
    assert found("d") == [deep]


def test_path_that_does_not_exist_is_an_input(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    good, missing = Files([tmp_path / "a.jpg", tmp_path / "b.jpg"])
    assert good.read() == b"a.jpg"
    with pytest.raises(ImageUnreadable, match=r"b\.jpg cannot be read \(No such file or directory\)"):
        missing.read()


@pytest.mark.parametrize("paths", [[], ["missing.jpg"], ["a.jpg/b.jpg", "missing"], ["nul\0.jpg"]])
def test_nothing_to_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str]) -> None:
    make(tmp_path, "a.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataInvalid, match=r"there is nothing to score: .* none of it exists; check the paths"):
        Files(paths)


def test_folder_without_pictures(tmp_path: Path) -> None:
    make(tmp_path, "notes.txt")
    with pytest.raises(DataInvalid, match=r"no pictures were found in .*end in .*\.jpg.*named by itself"):
        Files([tmp_path]).count()


def test_pipes_are_read_only_when_named(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    (inside,) = Files([tmp_path])
    with pytest.raises(ImageUnreadable, match=r"pipe\.jpg is not a regular file; name it by itself"):
        inside.read()
    (named,) = Files([pipe])
    writer = threading.Thread(target=pipe.write_bytes, args=(b"bytes",))
    writer.start()
    assert named.read() == b"bytes"
    writer.join()


def test_file_larger_than_any_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 5)
    make(tmp_path, "12345", "123456")
    fits, large = Files([tmp_path / "12345", tmp_path / "123456"])
    assert fits.read() == b"12345"
    with pytest.raises(ImageUnreadable, match="is larger than 5 bytes"):
        large.read()


def test_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x" * 100)
    (item,) = Files([path])
    before = item.stamp()
    fstat = os.fstat
    looks = []

    def meanwhile(descriptor: int) -> os.stat_result:
        looks.append(fstat(descriptor))
        if len(looks) == 1:
            with path.open("ab") as writer:
                writer.write(b"y")
        return looks[-1]

    monkeypatch.setattr(os, "fstat", meanwhile)
    with pytest.raises(ImageUnreadable, match=r"a\.jpg changed while it was read; score it again when nobody writes"):
        item.read()
    monkeypatch.undo()
    assert item.read() == b"x" * 100 + b"y"
    assert item.stamp() != before


@pytest.mark.parametrize("path", ["/dev/zero", "/proc/self/smaps"])
def test_file_that_holds_more_than_it_says_is_cut_off(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets and devices have no size, and a file may grow while it is read."""
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    asked: list[int] = []

    class Counting(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            asked.append(size or 0)
            return super().read(size) or b""

    monkeypatch.setattr("builtins.open", lambda path, *_, **__: Counting(path))
    with pytest.raises(ImageUnreadable, match="larger than 1,000 bytes"):
        FileItem(0, path, named=True).read()
    assert 0 < max(asked) <= 1001
    assert min(asked) > 0


@pytest.mark.parametrize("pattern", ["in/*.jpg", "in/**/*.jpg", "named"])
def test_pattern_whose_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "in", "a.jpg", "b.jpg")
    source = Files(["in/a.jpg", "in/b.jpg", "gone/c.jpg"] if pattern == "named" else [pattern])
    items = iter(source)
    first = next(items)
    (tmp_path / "in").rename(tmp_path / "away")
    second = next(items)
    for item in (first, second):
        with pytest.raises(SourceGone, match="in is gone since the run began"):
            item.read()
    for never_there in items:
        with pytest.raises(ImageUnreadable):
            never_there.read()


def test_folder_that_is_gone_is_not_taken_for_a_bad_file(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.jpg", "b.jpg")
    first, second = Files([tmp_path / "in"])
    (tmp_path / "in" / "b.jpg").unlink()
    with pytest.raises(ImageUnreadable, match="No such file"):
        second.read()
    (tmp_path / "in").rename(tmp_path / "away")
    with pytest.raises(SourceGone, match=r"in is gone since the run began; bring it back"):
        first.read()
    # A disk that was unmounted leaves an empty folder in its place.
    (tmp_path / "in").mkdir()
    with pytest.raises(SourceGone):
        first.read()
    (tmp_path / "in").rmdir()
    (tmp_path / "away").rename(tmp_path / "in")
    assert first.read() == b"a.jpg"
    # What was named by itself, or stands in a table, concerns nobody else.
    with pytest.raises(ImageUnreadable):
        FileItem(0, str(tmp_path / "nowhere" / "a.jpg")).read()


def test_folder_that_becomes_a_file(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    (item,) = Files([tmp_path])
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(ImageUnreadable):
        item.read()


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder, and an identity that modes apply to: root may read everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "secret").mkdir()
        make(folder, "a.jpg", "locked.jpg", "secret/b.jpg")
        folder.chmod(0o755)
        modes = {folder / "locked.jpg": 0o000, folder / "secret": 0o000}
        for path, mode in modes.items():
            path.chmod(mode)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            for path in modes:
                path.chmod(0o700)


def test_what_may_not_be_read_is_an_input(unprivileged: Path) -> None:
    good, locked, secret = Files([unprivileged])
    assert good.read() == b"a.jpg"
    with pytest.raises(ImageUnreadable, match=r"locked\.jpg cannot be read \(Permission denied\); check"):
        locked.read()
    assert secret.path == f"{unprivileged}/secret"
    with pytest.raises(ImageUnreadable, match=r"secret is a folder that cannot be listed \(Permission denied\)"):
        secret.read()
    (hidden,) = Files([unprivileged / "secret" / "b.jpg"])
    with pytest.raises(ImageUnreadable, match="Permission denied"):
        hidden.read()
