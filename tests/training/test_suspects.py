import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from training import suspects
from training.dataset import Photos, open_photos
from training.pixels import PixelStore
from training.recipe import Recipe
from training.solver import Points
from training.suspects import SUSPECTS_CSV, SUSPECTS_PNG, find_suspects, report_suspects

CENTRES = np.random.default_rng(1).normal(size=(3, 16)) * 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_photos: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("suspects")
    make_photos(folder / "shapes", per_class=20)
    return folder


@pytest.fixture
def photos(make_recipe: Callable[..., Recipe], root: Path, tmp_path: Path) -> Iterator[Photos]:
    """36 training, 12 validation and 12 test photos of three classes."""
    with PixelStore(tmp_path / "pixels", 2**22) as store:
        yield open_photos(make_recipe(), root, store)


def points(photos: Photos, split: str, shown: dict[int, int] | None = None) -> Points:
    """Features as a good backbone gives them; `shown` says which class the photos of a class really show."""
    labels = np.array([item.label for item in photos.splits[split]])
    truth = np.array([(shown or {}).get(label, label) for label in labels])
    return Points(CENTRES[truth] + np.random.default_rng(2).normal(size=(len(labels), 16)), labels)


def test_planted_photos_are_found_said_listed_and_shown(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known, measured = points(photos, "train"), points(photos, "validation")
    known.features[2], known.features[30], measured.features[5] = CENTRES[2], CENTRES[0], CENTRES[0]
    planted = [photos.splits["train"][2], photos.splits["train"][30], photos.splits["validation"][5]]
    suspects, classes = find_suspects(photos, known, measured, 0)
    assert {suspect.item for suspect in suspects} == set(planted)
    assert {suspect.item: suspect.looks_like for suspect in suspects} == dict(zip(planted, (2, 0, 0), strict=True))
    assert classes == []

    batches = [(torch.from_numpy(each.features).float(), torch.from_numpy(each.labels)) for each in (known, measured)]
    report_suspects(tmp_path, photos, batches[0], batches[1])
    rows = list(csv.DictReader((tmp_path / SUSPECTS_CSV).read_text("utf-8").splitlines()))
    assert {row["path"] for row in rows} == {item.path for item in planted}
    assert (tmp_path / SUSPECTS_PNG).stat().st_size > 1000
    said = capsys.readouterr().err
    assert all(f"mislabelled? {item.path}: {photos.labels[item.label]}" in said for item in planted)


def test_where_most_photos_are_suspects_the_features_are_doubted(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "TOO_MANY", 0.1)  # for more than half it takes a hundred classes
    noise = np.random.default_rng(3).normal(size=(48, 16)) * 30
    known, measured = points(photos, "train"), points(photos, "validation")
    batches = [
        (torch.from_numpy(features).float(), torch.from_numpy(each.labels))
        for features, each in ((noise[:36], known), (noise[36:], measured))
    ]
    report_suspects(tmp_path, photos, batches[0], batches[1])
    rows = list(csv.DictReader((tmp_path / SUSPECTS_CSV).read_text("utf-8").splitlines()))
    said = capsys.readouterr().err
    assert f"{len(rows)} of 48 photos are taken for another class" in said
    assert "mislabelled?" not in said


def test_photos_without_fault_are_no_suspects(photos: Photos) -> None:
    assert find_suspects(photos, points(photos, "train"), points(photos, "validation"), 0) == ([], [])


def test_swapped_validation_folders_are_said(photos: Photos) -> None:
    _, classes = find_suspects(photos, points(photos, "train"), points(photos, "validation", {0: 1, 1: 0}), 0)
    assert len(classes) == 2
    assert "'circles': 100% of its validation photos look like the training photos of 'squares'" in classes[0]
    assert "'squares': 100%" in classes[1]


def test_two_photos_of_three_are_no_swapped_folder(photos: Photos) -> None:
    measured = points(photos, "validation")
    few = Points(measured.features[:3], measured.labels[:3])
    few.features[:2] = CENTRES[1]
    photos.splits["validation"][:] = photos.splits["validation"][:3]
    assert find_suspects(photos, points(photos, "train"), few, 0)[1] == []


def test_two_classes_of_the_same_things_are_said(photos: Photos) -> None:
    same = {1: 0}
    _, classes = find_suspects(photos, points(photos, "train", same), points(photos, "validation", same), 0)
    assert any("'circles' and 'squares' cannot be told apart" in line for line in classes)
    assert not any("triangles" in line for line in classes)


def test_a_class_of_one_photo_is_no_ground_for_suspicion(photos: Photos) -> None:
    known, measured = points(photos, "train"), points(photos, "validation")
    lone = Points(known.features[:25], known.labels[:25])
    none = Points(measured.features[:0], measured.labels[:0])
    photos.splits["train"][:] = photos.splits["train"][:25]
    photos.splits["validation"][:] = []
    assert np.bincount(lone.labels).tolist() == [12, 12, 1]
    assert find_suspects(photos, lone, none, 0) == ([], [])
