"""Archives that are what they should be, and archives that are out to harm."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.errors import DataInvalid
from tests.training.datasets.conftest import Files, expecting, put, tar_of, zip_of
from training.datasets import archives, store
from training.datasets.archives import members
from training.datasets.store import fetch, lacking, pictures_in

NAMES = ["hymenoptera_data/train/ants/a.jpg", "hymenoptera_data/train/bees/b.jpg"]


def contents(path: Path) -> Files:
    return {member.name: member.read() for member in members(path)}


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_every_file_is_given_out(pack: Callable[[Files], bytes], tmp_path: Path) -> None:
    files = {"a/b.txt": b"one", "a/c/d.txt": b"", "e é 🐝.txt": b"two" * 1000}
    (tmp_path / "archive").write_bytes(pack(files))
    assert contents(tmp_path / "archive") == files
    put(tmp_path / "a", {"b.txt": b"one"})
    assert contents(tmp_path / "a") == {"a/b.txt": b"one"}


@pytest.mark.parametrize("pack", [tar_of, zip_of])
@pytest.mark.parametrize("name", ["../out.jpg", "/out.jpg", "a/../../out.jpg", "C:/out.jpg", "..\\out.jpg"])
def test_a_name_that_leaves_the_folder_is_refused(name: str, pack: Callable[[Files], bytes], tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(pack({name: b"x"}))
    with pytest.raises(DataInvalid, match="leaves the archive's folder; nothing was taken"):
        contents(tmp_path / "archive")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_device_in_a_tar_is_refused(kind: bytes, tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        entry = tarfile.TarInfo(NAMES[0])
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    (tmp_path / "archive").write_bytes(made.getvalue())
    with pytest.raises(DataInvalid, match="is a link or a device"):
        contents(tmp_path / "archive")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo(NAMES[0])
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(DataInvalid, match="is a link or a device"):
        contents(tmp_path / "archive")


def test_a_link_in_an_unpacked_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    put(tmp_path / "a", {"b": b"one"})
    (tmp_path / "a" / "c").symlink_to(tmp_path / "secret")
    assert contents(tmp_path / "a") == {"a/b": b"one"}


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_a_bomb_is_refused(pack: Callable[[Files], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "ROOM", 1 << 20)
    (tmp_path / "archive").write_bytes(pack({f"{number}.jpg": bytes(1 << 20) for number in range(8)}))
    with pytest.raises(DataInvalid, match="unpack to far more"):
        contents(tmp_path / "archive")
    monkeypatch.setattr(archives, "LARGEST", 1000)
    (tmp_path / "archive").write_bytes(pack({"1.jpg": bytes(1001)}))
    with pytest.raises(DataInvalid, match="unpack to far more"):
        contents(tmp_path / "archive")


@pytest.mark.parametrize("pack", [tar_of, zip_of])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_a_damaged_archive_is_said(keep: float, pack: Callable[[Files], bytes], tmp_path: Path) -> None:
    import random

    whole = pack({"a.jpg": random.Random(0).randbytes(100_000), "b.jpg": b"x" * 10})
    (tmp_path / "archive").write_bytes(whole[: int(keep * len(whole)) if keep < 1 else int(keep)])
    with pytest.raises(DataInvalid, match="damaged or no archive"):
        contents(tmp_path / "archive")


def test_damaged_lzma_is_said(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.jpg", bytes(range(256)) * 400)
    whole = bytearray((tmp_path / "archive").read_bytes())
    whole[60:80] = bytes(20)
    (tmp_path / "archive").write_bytes(whole)
    with pytest.raises(DataInvalid, match="damaged or no archive"):
        contents(tmp_path / "archive")


@pytest.fixture
def ants(tmp_path: Path, picture: Callable[..., bytes]) -> Files:
    """The hymenoptera archive's files: one photo per class and split, one that is damaged, one that is no photo."""
    files = {
        f"hymenoptera_data/{split}/{label}/{label}.jpg": picture(size=(40, 30))
        for split in ("train", "val")
        for label in ("ants", "bees")
    }
    return files | {
        "hymenoptera_data/train/ants/cut.jpg": picture()[:500],
        "hymenoptera_data/train/ants/imageNotFound.gif": b"GIF89a",
        "hymenoptera_data/train/wasps/w.jpg": picture(),
    }


def test_photos_go_to_their_places_and_unreadable_ones_are_said(
    ants: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = {"hymenoptera_data.zip": zip_of(ants)}
    assert fetch(expecting("hymenoptera", archive), tmp_path / "data", put(tmp_path / "from", archive))
    said = capsys.readouterr().err
    assert "hymenoptera_data/train/ants/cut.jpg is left out" in said
    assert "4 of 397 pictures" in said
    found = {path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*.*")}
    assert found == {f"hymenoptera/{s}/{c}/{c}.jpg" for s in ("train", "val") for c in ("ants", "bees")}
    assert (tmp_path / "data/hymenoptera/val/bees/bees.jpg").read_bytes() == ants["hymenoptera_data/val/bees/bees.jpg"]


def test_a_folder_that_was_unpacked_by_hand_is_taken(
    ants: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = {"hymenoptera_data.zip": zip_of(ants)}
    assert fetch(expecting("hymenoptera", archive), tmp_path / "data", put(tmp_path / "from", ants))
    assert "no digest to hold them to" in capsys.readouterr().err
    assert lacking(expecting("hymenoptera", archive), tmp_path / "data") == []


def test_the_authors_cats_and_dogs_are_taken_by_number(tmp_path: Path, picture: Callable[..., bytes]) -> None:
    numbers = (0, 1, 10, 999, 1000, 1001, 4000, 4001, 4099, 4500, 4501, 12499)
    photo = picture(size=(20, 20))
    archive = {"c.zip": zip_of({f"PetImages/{kind}/{n}.jpg": photo for kind in ("Cat", "Dog") for n in numbers})}
    assert fetch(expecting("catdog", archive), tmp_path / "data", put(tmp_path / "from", archive))
    for kind in ("cat", "dog"):
        taken = {
            split: sorted(
                int(path.name.split(".")[1]) for path in (tmp_path / f"data/catdog/{split}/{kind}s").iterdir()
            )
            for split in ("train", "val")
        }
        assert taken == {"train": [1, 10, 999, 1000], "val": [4001, 4099, 4500]}


def test_flowers_keep_the_credits_of_their_photographers(tmp_path: Path, picture: Callable[..., bytes]) -> None:
    chosen = expecting("flowers", {"f.tgz": b""})
    files = {f"flower_photos/{label}/1.jpg": picture(size=(20, 20)) for label in chosen.classes}
    archive = {"f.tgz": tar_of(files | {"flower_photos/LICENSE.txt": b"CC BY"})}
    chosen = expecting("flowers", archive)
    assert fetch(chosen, tmp_path / "data", put(tmp_path / "from", archive))
    assert (tmp_path / "data/flowers/LICENSE.txt").read_bytes() == b"CC BY"
    assert pictures_in(chosen, tmp_path / "data") == 5


@pytest.mark.parametrize(
    ("present", "says"),
    [
        ({}, "there is no hymenoptera_data.zip .or hymenoptera_data. below"),
        ({"hymenoptera_data.zip": b"another"}, "is not the official file: 7 bytes with sha256"),
    ],
)
def test_what_from_lacks_is_said(present: Files, says: str, ants: Files, tmp_path: Path) -> None:
    source = put(tmp_path / "from", present)
    source.mkdir(exist_ok=True)
    with pytest.raises(DataInvalid, match=says):
        fetch(expecting("hymenoptera", {"hymenoptera_data.zip": zip_of(ants)}), tmp_path / "data", source)
    with pytest.raises(DataInvalid, match="is not a folder"):
        fetch(expecting("hymenoptera", {"hymenoptera_data.zip": b""}), tmp_path / "data", tmp_path / "nowhere")


def test_an_archive_without_a_class_makes_no_set(ants: Files, tmp_path: Path) -> None:
    archive = {"hymenoptera_data.zip": zip_of({name: photo for name, photo in ants.items() if "val/bees" not in name})}
    with pytest.raises(DataInvalid, match="no picture for hymenoptera/val/bees"):
        fetch(expecting("hymenoptera", archive), tmp_path / "data", put(tmp_path / "from", archive))
    assert not (tmp_path / "data/hymenoptera").exists()


def test_a_fetch_that_dies_while_writing_leaves_no_set_and_the_next_one_makes_it(
    ants: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = {"hymenoptera_data.zip": zip_of(ants)}
    chosen, source = expecting("hymenoptera", archive), put(tmp_path / "from", archive)
    with monkeypatch.context() as patch:
        patch.setattr(store.Progress, "step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch(chosen, tmp_path / "data", source)
    assert lacking(chosen, tmp_path / "data")
    assert (tmp_path / "data/.hymenoptera.part").exists()
    assert fetch(chosen, tmp_path / "data", source)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["hymenoptera"]


def test_a_folder_that_is_no_whole_set_is_left_alone(ants: Files, tmp_path: Path) -> None:
    put(tmp_path / "data/hymenoptera/train/ants", {"mine.jpg": b"x"})
    archive = {"hymenoptera_data.zip": zip_of(ants)}
    with pytest.raises(DataInvalid, match=r"is there but lacks hymenoptera/train/bees.*move it away"):
        fetch(expecting("hymenoptera", archive), tmp_path / "data", put(tmp_path / "from", archive))
    assert (tmp_path / "data/hymenoptera/train/ants/mine.jpg").read_bytes() == b"x"
