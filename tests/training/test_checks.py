import csv
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.errors import DataInvalid
from training.checks import check_photos, say_findings, write_findings
from training.dataset import Photos, open_photos
from training.duplicates import NEAR, hash_of
from training.pixels import PixelStore
from training.recipe import Recipe

Make = Callable[..., Recipe]
FOLDERS = {"train": {"folder": "train"}, "validation": {"folder": "val"}}


def scene(path: Path, seed: int, quality: int = 95) -> None:
    """A picture of soft random patches, unlike that of every other seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    patches = np.random.default_rng(seed).integers(0, 255, (9, 9, 3)).astype(np.uint8)
    Image.fromarray(patches).resize((96, 96), Image.Resampling.BICUBIC).save(path, quality=quality)


@contextmanager
def photos_of(recipe: Recipe, root: Path, tmp_path: Path) -> Iterator[Photos]:
    with PixelStore(tmp_path / "pixels", 2**22) as store:
        yield open_photos(recipe, root, store)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """25 and 24 training photos and 6 and 6 validation photos without a fault."""
    root = tmp_path / "data"
    for number, (split, label, count) in enumerate(
        (("train", "a", 25), ("train", "b", 24), ("val", "a", 6), ("val", "b", 6))
    ):
        for index in range(count):
            scene(root / split / label / f"{index}.jpg", 100 * number + index)
    return root


def test_photos_without_fault_give_no_finding(root: Path, make_recipe: Make, tmp_path: Path) -> None:
    with photos_of(make_recipe(data=FOLDERS), root, tmp_path) as photos:
        assert check_photos(photos) == []


def test_few_and_uneven(root: Path, make_recipe: Make, tmp_path: Path) -> None:
    for index in range(2, 24):
        (root / "train/b" / f"{index}.jpg").unlink()
    (root / "val/a/0.jpg").unlink()
    (root / "val/a/1.jpg").unlink()
    with photos_of(make_recipe(data=FOLDERS), root, tmp_path) as photos:
        found = {(finding.kind, finding.about) for finding in check_photos(photos)}
    assert found == {("few photos", "b"), ("few photos", "a"), ("uneven classes", "b")}


def test_one_file_under_two_labels(root: Path, make_recipe: Make, tmp_path: Path) -> None:
    shutil.copy(root / "train/a/1.jpg", root / "train/b/copy.jpg")
    shutil.copy(root / "train/a/2.jpg", root / "val/b/copy.jpg")
    shutil.copy(root / "train/a/3.jpg", root / "val/a/copy.jpg")
    with photos_of(make_recipe(data=FOLDERS), root, tmp_path) as photos:
        assert len(photos.left_out) == 2
        findings = check_photos(photos)
    assert [(finding.kind, finding.about, finding.other) for finding in findings] == [
        ("two labels", "train/b/copy.jpg", "train/a/1.jpg"),
        ("two labels", "val/b/copy.jpg", ""),
    ]
    assert "the same file as train/a/2.jpg, which is of another class" in findings[1].advice


def test_near_duplicates_across_splits_are_said_and_dropped_where_asked(
    root: Path, make_recipe: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(6, 12):
        scene(root / f"val/a/{index}.jpg", 200 + index)
        scene(root / f"val/b/{index}.jpg", 300 + index)
    scene(root / "train/a/again.jpg", 203, quality=40)  # val/a/3.jpg once more
    data = {**FOLDERS, "test": {"share": 0.4, "of": "validation"}}
    with photos_of(make_recipe(data=data), root, tmp_path) as photos:
        (finding,) = check_photos(photos)
        assert (finding.kind, finding.about, finding.other) == ("near duplicates", "train/a/again.jpg", "val/a/3.jpg")
    say_findings([finding] * 25)
    assert capsys.readouterr().err.count("val/a/3.jpg") == 20
    write_findings(tmp_path / "checks.csv", [finding] * 25)
    rows = list(csv.DictReader((tmp_path / "checks.csv").read_text("utf-8").splitlines()))
    assert len(rows) == 25
    assert rows[0]["other"] == "val/a/3.jpg"
    with photos_of(make_recipe(data=data | {"near_duplicates": "drop"}), root, tmp_path) as photos:
        assert check_photos(photos) == []
        assert [entry.path for entry in photos.left_out] == ["train/a/again.jpg"]
        assert len(photos.splits["train"]) == 49


def test_pictures_that_are_all_alike_are_no_copies(root: Path, make_recipe: Make, tmp_path: Path) -> None:
    for index in range(25):
        scene(root / f"train/a/{index}.jpg", 0, quality=70 + index)
        scene(root / f"train/b/{index}.jpg", 0, quality=30 + index)
    scene(root / "val/a/0.jpg", 0)
    with photos_of(make_recipe(data=FOLDERS), root, tmp_path) as photos:
        (finding,) = check_photos(photos)
    assert (finding.kind, finding.about) == ("near duplicates", "train")
    assert "50 of 50 photos are nearly photos of other splits" in finding.advice
    with (
        pytest.raises(DataInvalid, match="50 of 50 training photos are nearly photos of other splits"),
        photos_of(make_recipe(data=FOLDERS | {"near_duplicates": "drop"}), root, tmp_path),
    ):
        pass


def test_a_hash_tells_copies_from_others(tmp_path: Path) -> None:
    for seed in (1, 2):
        scene(tmp_path / f"{seed}.png", seed)
    first, second = (Image.open(tmp_path / f"{seed}.png") for seed in (1, 2))
    assert np.bitwise_count(hash_of(first) ^ hash_of(first.resize((60, 60)))) <= NEAR
    assert np.bitwise_count(hash_of(first) ^ hash_of(second)) > 2 * NEAR
