"""The three kinds of pictures, made from a folder of photos: as they are, as from a phone, and as thumbnails."""

import io
import itertools
import random
from pathlib import Path

from PIL import Image

KINDS = ("photos", "phone", "thumbnails")
PHONE = (4000, 3000)
PHONE_BYTES = 3_000_000
LONGER_SIDE = range(450, 501)
"""Of the photos that are taken as they are, in pixels: about 500 × 415 and 42 KB."""


def pictures(folder: Path, kind: str, count: int) -> list[bytes]:
    """`count` encoded JPEG pictures of one kind, always the same for the same folder."""
    files = sorted(folder.rglob("*.jpg"))
    random.Random(0).shuffle(files)
    originals = (path.read_bytes() for path in files)
    fitting = list(itertools.islice((data for data in originals if _is_typical(data)), count))
    if len(fitting) < count:
        raise ValueError(f"{folder} holds {len(fitting)} photos of {LONGER_SIDE} pixels, {count} are wanted")
    if kind == "photos":
        return fitting
    if kind == "thumbnails":
        return [_encoded(_opened(data), (256, 256 * 415 // 500), 85) for data in fitting]
    return [_phone(_opened(data)) for data in fitting]


def _is_typical(data: bytes) -> bool:
    return max(Image.open(io.BytesIO(data)).size) in LONGER_SIDE


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _phone(image: Image.Image) -> bytes:
    """12 megapixels at the quality that gives about 3 MB; grain stands for the detail that enlarging cannot add."""
    large = image.resize(PHONE, Image.Resampling.BICUBIC)
    grain = Image.effect_noise(PHONE, 18).convert("RGB")
    large = Image.blend(large, grain, 0.12)
    return min(
        (_encoded(large, PHONE, quality) for quality in (70, 80, 88)), key=lambda data: abs(len(data) - PHONE_BYTES)
    )


def _encoded(image: Image.Image, size: tuple[int, int], quality: int) -> bytes:
    target = io.BytesIO()
    (image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)).save(
        target, "JPEG", quality=quality
    )
    return target.getvalue()
