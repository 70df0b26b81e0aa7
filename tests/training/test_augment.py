import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import v2

from training import assess, finetune
from training.augment import Augment, mixing
from training.dataset import open_photos
from training.pixels import PixelStore
from training.recipe import Recipe
from training.sections import Augmentation

Make = Callable[..., Recipe]
LITTLE = Augmentation(size=32, crop="padded", flip=0.0)


def noise(width: int, height: int) -> Image.Image:
    return Image.effect_noise((width, height), 90).convert("RGB")


@pytest.mark.parametrize("padding", [0, 4, 7])
@pytest.mark.parametrize("seed", range(3))
def test_a_padded_crop_of_a_small_photo_is_torchvisions(padding: int, seed: int) -> None:
    image = noise(32, 32)
    torch.manual_seed(seed)
    expected = np.asarray(v2.RandomCrop(32, padding=padding)(image))
    found = Augment(LITTLE.model_copy(update={"padding": padding}))(image, seed)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert np.array_equal(found.numpy(), np.asarray(image)) or padding


def test_a_padded_crop_of_a_larger_photo_shows_its_whole_shorter_side() -> None:
    image = noise(96, 48)
    resized = np.asarray(v2.Resize(32, antialias=True)(image))
    crop = Augment(LITTLE.model_copy(update={"padding": 0}))(image, 3).numpy()
    assert any(np.array_equal(crop, resized[:, left : left + 32]) for left in range(33))


def test_rotation_turns_by_as_much_as_it_says() -> None:
    image = Image.new("RGB", (32, 32), (255, 255, 255))
    turned = Augment(LITTLE.model_copy(update={"padding": 0, "rotation": 15.0}))
    shares = [float((turned(image, seed) == 0).float().mean()) for seed in range(40)]
    corners = float(
        (np.asarray(v2.functional.rotate(image, 15, v2.InterpolationMode.BILINEAR)) == 0).astype(np.float32).mean()
    )
    assert 0.6 * corners < max(shares) <= corners
    assert min(shares) < 0.2 * corners


def test_order_of_the_transforms() -> None:
    everything = Augmentation.model_validate(
        {"crop": "padded", "rotation": 5.0, "policy": "randaugment", "jitter": {"hue": 0.1}}
    )
    kinds = [type(transform).__name__ for transform in Augment(everything)._on_image.transforms]
    assert kinds == ["Resize", "RandomCrop", "RandomHorizontalFlip", "RandAugment", "ColorJitter", "RandomRotation"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"padding": 8}, "`padding` means nothing to a resized crop"),
        ({"crop": "padded", "scale": [0.5, 1.0]}, "`scale` means nothing to a padded crop"),
        ({"crop": "padded", "ratio": [1.0, 1.0]}, "`ratio` means nothing to a padded crop"),
        ({"crop": "padded", "padding": 32, "size": 32}, "can push all of the photo out of its `size` 32"),
        ({"crop": "padded", "padding": -1}, "greater than or equal to 0"),
        ({"crop": "centre"}, "crop"),
        ({"rotation": 181.0}, "less than or equal to 180"),
        ({"rotation": -15.0}, "greater than or equal to 0"),
    ],
)
def test_impossible_augmentations_are_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Augmentation.model_validate_json(json.dumps(content))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_batches_of_any_size_can_be_mixed(count: int, kind: str) -> None:
    mix = mixing(Augmentation.model_validate({kind: 1.0}), 3)
    assert mix is not None
    images, targets = mix(torch.full((count, 8, 8, 3), 7, dtype=torch.uint8), torch.arange(count) % 3)
    assert images.shape == (count, 8, 8, 3)
    torch.testing.assert_close(targets.sum(1), torch.ones(count))


@pytest.fixture
def little_photos(tmp_path: Path) -> Path:
    """32 × 32 photos of two classes, seven each."""
    for label, colour in (("dark", 40), ("light", 200)):
        (tmp_path / "data" / "shapes" / label).mkdir(parents=True)
        for index in range(7):
            tone = Image.new("RGB", (32, 32), (colour, colour + index, colour))
            tone.save(tmp_path / "data" / "shapes" / label / f"{index}.png")
    return tmp_path / "data"


def test_little_photos_are_trained_on_as_they_are(
    make_recipe: Make,
    little_photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(assess, "_draw", lambda *_: None)
    recipe = make_recipe(
        preprocessing={"resize": 32, "crop": 32},
        augmentation={"size": 32, "crop": "padded", "rotation": 15.0, "mixup": 0.2},
        stages=[{"name": "s", "epochs": 2, "rates": {"head": 0.01}}],
        batch_size=3,
    )
    with PixelStore(tmp_path / "pixels", 10**6) as store:
        photos = open_photos(recipe, little_photos, store)
        item = photos.splits["train"][0]
        assert photos.image(item).size == (32, 32)
        np.testing.assert_array_equal(photos.crop(item), np.asarray(photos.image(item)))
    result = finetune.train(recipe, little_photos, None, tmp_path / "run", device="cpu", workers=0)
    assert result.status == "finished"
    assert "enlarged" not in capsys.readouterr().err


def test_photos_are_not_enlarged_without_a_word(
    make_recipe: Make, little_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(augmentation={"size": 40})
    with PixelStore(tmp_path / "pixels", 10**6) as store:
        photos = open_photos(recipe, little_photos, store)
    count = len(photos.splits["train"])
    assert f"{count} training photos are smaller than their crop of 40 pixels" in capsys.readouterr().err
