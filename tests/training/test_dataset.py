import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from inference.errors import DataInvalid
from training.augment import Augment, mixing, seed_of
from training.dataset import Photos, TrainingBatches, open_photos
from training.pixels import PixelStore
from training.recipe import Recipe
from training.sections import Augmentation, Jitter

Make = Callable[..., Recipe]
PLENTY = 2**26


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PixelStore]:
    with PixelStore(tmp_path / "pixels", PLENTY) as store:
        yield store


@pytest.fixture
def photos(make_recipe: Make, photos_root: Path, store: PixelStore) -> Photos:
    return open_photos(make_recipe(), photos_root, store)


def test_evaluation_crops_are_the_services(photos: Photos) -> None:
    items = photos.splits["validation"]
    batches = list(photos.crops(items, 4))
    pixels = torch.cat([images for images, _ in batches]).numpy()
    assert [len(labels) for _, labels in batches] == [4, 2]
    for item, crop in zip(items, pixels, strict=True):
        np.testing.assert_array_equal(crop, photos.recipe.preprocessing((photos.root / item.path).read_bytes()))


def test_pixels_do_not_depend_on_the_budget(
    make_recipe: Make, photos_root: Path, tmp_path: Path, photos: Photos
) -> None:
    with PixelStore(tmp_path / "none", 0) as empty:
        without = open_photos(make_recipe(), photos_root, empty)
        assert len(empty) == 0
        assert len(photos.store) == 36
        for split in photos.splits:
            for with_item, item in zip(photos.splits[split], without.splits[split], strict=True):
                np.testing.assert_array_equal(photos.crop(with_item), without.crop(item))
                np.testing.assert_array_equal(photos.image(with_item), without.image(item))


def test_workers_and_repetition_do_not_change_an_epoch(photos: Photos) -> None:
    def epoch(workers: int, number: int) -> list[torch.Tensor]:
        return [images for images, _ in TrainingBatches(photos, workers).epoch(number)]

    alone, again, beside = epoch(0, 1), epoch(0, 1), epoch(1, 1)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(alone, again, beside, strict=True))
    assert not torch.equal(alone[0], epoch(0, 2)[0])


def test_an_epoch_shows_no_photo_twice(photos: Photos) -> None:
    batches = TrainingBatches(photos, 0)
    labels = Counter(int(label) for _, part in batches.epoch(0) for label in part)
    assert len(batches) == 4
    assert labels == Counter({0: 8, 1: 8, 2: 8})


def test_loading_leaves_the_global_generator_alone(photos: Photos) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(TrainingBatches(photos, 0).epoch(0))
    assert torch.equal(torch.rand(3), expected)


def test_unreadable_photos_are_left_out_and_reported(
    make_recipe: Make, make_photos: Callable[..., Path], tmp_path: Path, store: PixelStore
) -> None:
    root = tmp_path / "data"
    make_photos(root / "shapes")
    whole = (root / "shapes" / "circles" / "circles-0.png").read_bytes()
    (root / "shapes" / "circles" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "shapes" / "squares" / "notes.txt").write_text("not a photo")
    (root / "shapes" / "squares" / "empty.jpg").touch()
    photos = open_photos(make_recipe(), root, store)
    assert {(Path(entry.path).name, entry.code) for entry in photos.left_out} == {
        ("cut.png", "image_truncated"),
        ("notes.txt", "image_unsupported"),
        ("empty.jpg", "image_empty"),
    }
    assert sum(map(len, photos.splits.values())) == 36


def test_a_class_without_readable_photos_ends_the_run(
    make_recipe: Make, make_photos: Callable[..., Path], tmp_path: Path, store: PixelStore
) -> None:
    root = tmp_path / "data"
    make_photos(root / "shapes")
    for path in (root / "shapes" / "circles").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataInvalid, match="no photo of class 'circles' is left"):
        open_photos(make_recipe(), root, store)


def test_large_photos_are_reduced_for_augmentation_only(
    make_recipe: Make, make_photos: Callable[..., Path], tmp_path: Path, store: PixelStore
) -> None:
    root = tmp_path / "data"
    make_photos(root / "shapes")
    for shade, path in enumerate((root / "shapes" / "circles").iterdir()):
        Image.new("RGB", (400, 200), (255, shade, 0)).save(path)
    photos = open_photos(make_recipe(), root, store)
    sizes = {photos.image(item).size for item in photos.splits["train"] if item.label == 0}
    assert sizes == {(128, 64)}


def test_store_keeps_what_fits_and_removes_its_file(tmp_path: Path) -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    path = tmp_path / "pixels"
    path.write_bytes(b"left behind by a killed run")
    with PixelStore(path, budget=100) as store:
        store.put("a", pixels)
        store.put("too large", np.zeros((10, 10, 3), np.uint8))
        np.testing.assert_array_equal(store.get("a"), pixels)
        assert store.get("too large") is None
        assert store.used == 60
    assert not path.exists()


def test_store_spares_what_checkpoints_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with PixelStore(tmp_path / "pixels", PLENTY, spared=900) as store:
        store.put("a", np.zeros((4, 4, 3), np.uint8))
        store.put("b", np.zeros((4, 4, 3), np.uint8))
        assert store.used == 48
    with PixelStore(tmp_path / "pixels", PLENTY, spared=2000) as store:
        store.put("a", np.zeros((1, 1, 3), np.uint8))
        assert len(store) == 0


def test_store_gives_back_what_it_has_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PixelStore(tmp_path / "pixels", PLENTY) as store:
        store.put("a", np.zeros((4, 4, 3), np.uint8))

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "open", full)
        store.put("b", np.zeros((4, 4, 3), np.uint8))
        assert (store.used, store.get("a"), store.path.exists()) == (0, None, False)


def test_augmentation_is_its_seed() -> None:
    image = Image.effect_noise((80, 70), 90).convert("RGB")
    everything = Augmentation(size=32, jitter=Jitter(hue=0.2), policy="trivialaugment", erasing=0.9)
    for augmentation in (everything, Augmentation(size=32, policy="randaugment")):
        augment = Augment(augmentation)
        assert torch.equal(augment(image, 5), augment(image, 5))
        assert not torch.equal(augment(image, 5), augment(image, 6))
        assert augment(image, 5).shape == (32, 32, 3)
        assert augment(image, 5).dtype == torch.uint8


def test_no_augmentation_at_all_is_a_resize() -> None:
    image = Image.effect_noise((64, 64), 90).convert("RGB")
    plain = Augmentation(size=64, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    np.testing.assert_array_equal(Augment(plain)(image, 1).numpy(), np.asarray(image))


def test_mixing_gives_probabilities() -> None:
    images, labels = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8), torch.tensor([0, 1, 2, 0])
    assert mixing(Augmentation(), 3) is None
    mix = mixing(Augmentation(mixup=0.4, cutmix=1.0), 3)
    assert mix is not None
    torch.manual_seed(0)
    mixed, targets = mix(images, labels)
    assert mixed.shape == images.shape
    assert 0 <= float(mixed.min()) <= float(mixed.max()) <= 255
    torch.testing.assert_close(targets.sum(1), torch.ones(4))


def test_seeds_depend_on_every_part() -> None:
    seeds = {
        seed_of(*parts) for parts in ((0, "a", 1, 2), (0, "a", 2, 1), (0, "b", 1, 2), (1, "a", 1, 2), (0, "a", 12))
    }
    assert len(seeds) == 5


def test_crops_are_prepared_ahead(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    crop = Photos.crop

    def slow(self: Photos, item: object) -> object:
        time.sleep(0.02)
        return crop(self, item)  # type: ignore[arg-type]

    monkeypatch.setattr(Photos, "crop", slow)
    batches = photos.crops(photos.splits["train"][:4], 2)
    next(batches)
    time.sleep(0.3)
    began = time.perf_counter()
    next(batches)
    assert time.perf_counter() - began < 0.02
