"""The crop equals torchvision's, bit for bit."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from pydantic import ValidationError
from torchvision import transforms
from torchvision.transforms import v2

from inference.errors import ImageTooManyPixels
from inference.preprocessing import Crop, Preprocessing, golden_picture

SIZES = [
    (1, 1), (2, 1), (1, 3), (17, 31), (31, 17), (224, 224), (225, 224), (256, 256), (257, 256), (256, 257), (255, 511),
    (333, 500), (500, 333), (403, 301), (640, 480), (481, 641), (37, 1000), (1000, 37), (1279, 719),
]  # fmt: skip
GEOMETRIES = [(256, 224), (232, 224), (224, 224), (257, 224), (36, 31), (1, 1)]
PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "catdog" / "val"


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def torchvision_v1(image: Image.Image, preprocessing: Preprocessing) -> Crop:
    mode = transforms.InterpolationMode(preprocessing.interpolation)
    resized = transforms.Resize(preprocessing.resize, interpolation=mode)(image)
    return np.asarray(transforms.CenterCrop(preprocessing.crop)(resized))


def torchvision_v2(image: Image.Image, preprocessing: Preprocessing) -> Crop:
    mode = v2.InterpolationMode(preprocessing.interpolation)
    resized = v2.Resize(preprocessing.resize, interpolation=mode)(image)
    return np.asarray(v2.CenterCrop(preprocessing.crop)(resized))


@pytest.mark.parametrize("reference", [torchvision_v1, torchvision_v2])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_torchvision(
    size: tuple[int, int], interpolation: str, reference: Callable[[Image.Image, Preprocessing], Crop]
) -> None:
    preprocessing = Preprocessing(interpolation=interpolation)
    image = noise(*size)
    assert_array_equal(preprocessing.crop_of(image), reference(image, preprocessing))


@pytest.mark.parametrize(("resize", "crop"), GEOMETRIES)
def test_equals_torchvision_at_other_sizes(resize: int, crop: int) -> None:
    preprocessing = Preprocessing(resize=resize, crop=crop)
    chance = random.Random(resize * 1000 + crop)
    for seed in range(12):
        image = noise(chance.randint(1, 400), chance.randint(1, 400), seed)
        assert_array_equal(preprocessing.crop_of(image), torchvision_v1(image, preprocessing), str(image.size))


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photos for development are not here")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_equals_torchvision_on_photos(interpolation: str) -> None:
    preprocessing = Preprocessing(interpolation=interpolation, orientation="ignore")
    photos = sorted(PHOTOS.rglob("*.jpg"))[::10][:48]
    assert len(photos) == 48
    for path in photos:
        with Image.open(path) as image:
            expected = torchvision_v1(image.convert("RGB"), preprocessing)
        assert_array_equal(preprocessing(path.read_bytes()), expected, str(path))


def test_crop_is_its_own_memory() -> None:
    # A crop that shares Pillow's buffer would be read-only, which torch.from_numpy warns about.
    crop = Preprocessing(resize=8, crop=8).crop_of(noise(8, 8))
    assert crop.flags.writeable
    assert crop.flags.c_contiguous


def test_pixel_limit_is_exact() -> None:
    encoded = io.BytesIO()
    noise(100, 50).save(encoded, "PNG")
    preprocessing = Preprocessing(resize=8, crop=8)
    assert preprocessing(encoded.getvalue(), max_pixels=5000).shape == (8, 8, 3)
    with pytest.raises(ImageTooManyPixels, match=r"100 × 50 pixels, the limit is 4,999; send a smaller one"):
        preprocessing(encoded.getvalue(), max_pixels=4999)


def test_pixel_limit_holds_after_resizing() -> None:
    encoded = io.BytesIO()
    noise(100, 1).save(encoded, "PNG")
    with pytest.raises(ImageTooManyPixels, match="25600 × 256 pixels once resized"):
        Preprocessing()(encoded.getvalue(), max_pixels=1_000_000)


def test_golden_digest_tells_preprocessings_apart() -> None:
    variants = [
        Preprocessing(),
        Preprocessing(resize=255),
        Preprocessing(crop=223),
        Preprocessing(interpolation="bicubic"),
    ]
    assert len({each.golden_digest() for each in variants}) == len(variants)
    assert Preprocessing().golden_digest() == Preprocessing().golden_digest()
    assert golden_picture().size == (403, 301)


def test_crop_must_fit_into_resize() -> None:
    with pytest.raises(ValidationError, match="crop 225 is larger than resize 224"):
        Preprocessing(resize=224, crop=225)
