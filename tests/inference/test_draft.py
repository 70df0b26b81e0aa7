"""Large JPEG photos may be decoded at a part of their size: a little other pixels, the same outcomes."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import ExifTags, Image

from inference.classifier import Classifier
from inference.errors import ImageTooManyPixels, ImageTruncated
from inference.manifest import MANIFEST
from inference.preprocessing import DRAFT, Preprocessing, golden_picture
from inference.repository import Artifact
from scoring.files import Files
from scoring.local import LocalEngine
from scoring.scorer import Scorer

EXACT = Preprocessing(resize=36, crop=32)
DRAFTED = Preprocessing(resize=36, crop=32, decoder="pillow-draft")


def photo(size: tuple[int, int], kind: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    target = io.BytesIO()
    smooth = golden_picture().reduce(20).resize(size, Image.Resampling.BICUBIC)
    smooth.convert(mode).save(target, kind, **options)
    return target.getvalue()


@pytest.mark.parametrize(
    ("size", "reduced"),
    [
        ((143, 400), (143, 400)),  # half of it would be less than twice `resize`
        ((144, 400), (72, 200)),
        ((403, 301), (101, 76)),
        ((600, 800), (75, 100)),
        ((4000, 3000), (500, 375)),
    ],
)
def test_a_draft_is_as_small_as_its_sides_allow(size: tuple[int, int], reduced: tuple[int, int]) -> None:
    decoded = DRAFTED.decode(photo(size))
    assert decoded.image.size == reduced
    assert decoded.size == size
    assert decoded.reduced == (size != reduced)
    assert min(reduced) >= min(DRAFT * DRAFTED.resize, *size)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}, {"kind": "MPO"}])
def test_a_draft_gives_nearly_the_same_crop(options: dict[str, Any]) -> None:
    data = photo((806, 602), **options)
    assert DRAFTED.decode(data).reduced
    difference = np.abs(DRAFTED(data).astype(int) - EXACT(data))
    assert 0 < difference.mean() < 2


@pytest.mark.parametrize("size", [(925, 1157), (1157, 925), (1159, 1161)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_sides_that_do_not_divide_move_nothing(size: tuple[int, int], orientation: int) -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    data = photo(size, exif=tags, quality=95)
    decoded = DRAFTED.decode(data)
    assert decoded.reduced
    moved = np.abs(DRAFTED.crop_of(decoded.image, decoded.size).astype(int) - EXACT(data)).mean()
    assert np.abs(DRAFTED(data).astype(int) - EXACT(data)).mean() < moved / 1.5


@pytest.mark.parametrize(("size", "kind"), [((143, 400), "JPEG"), ((806, 602), "PNG"), ((806, 602), "WEBP")])
def test_small_photos_and_other_formats_are_decoded_exactly(size: tuple[int, int], kind: str) -> None:
    data = photo(size, kind)
    assert_array_equal(DRAFTED(data), EXACT(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_photo(orientation: int) -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    data = photo((805, 603), exif=tags)
    decoded, exact = DRAFTED.decode(data), EXACT.decode(data)
    assert decoded.reduced
    assert decoded.size == exact.size == exact.image.size
    assert (decoded.image.width > decoded.image.height) == (decoded.size[0] > decoded.size[1])
    assert np.abs(DRAFTED(data).astype(int) - EXACT(data)).mean() < 3


def test_a_draft_refuses_what_the_exact_decoder_refuses() -> None:
    data = photo((806, 602))
    with pytest.raises(ImageTruncated):
        DRAFTED(data[: len(data) // 2])
    with pytest.raises(ImageTooManyPixels, match="806 × 602"):
        DRAFTED(data, max_pixels=400_000)


@pytest.fixture
def drafted(exported: Path) -> Artifact:
    manifest = Artifact.open(exported).manifest.model_copy(update={"preprocessing": DRAFTED})
    (exported / MANIFEST).write_text(manifest.to_json())
    return Artifact.open(exported)


def test_rows_tell_the_photos_own_size(drafted: Artifact, tmp_path: Path, picture: Callable[..., bytes]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "large.jpg").write_bytes(picture((30, 200, 40), (805, 603)))
    engine = LocalEngine(Scorer(Classifier.load(drafted, device="cpu")), streams=1)
    (row,) = engine.rows(Files([tmp_path / "photos"]))
    assert (row.width, row.height, row.label) == (805, 603, "green")
