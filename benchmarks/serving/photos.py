"""The three kinds of pictures, made from a folder of photos: as they are, as from a phone, and as thumbnails."""

import io
import itertools
from pathlib import Path

from PIL import Image

KINDS = ("photos", "phone", "thumbnails")
PHONE = (4000, 3000)
PHONE_BYTES = 3_000_000
_PHOTO_SIDES = (400, 500)


def pictures(folder: Path, kind: str, count: int) -> list[bytes]:
    """`count` encoded JPEG pictures of one kind, always the same for the same folder."""
    files = sorted(path for path in folder.rglob("*.jpg"))
    originals = (path.read_bytes() for path in files[:: max(1, len(files) // (4 * count))])
    fitting = itertools.islice((data for data in originals if _is_typical(data)), count)
    if kind == "photos":
        return list(fitting)
    if kind == "thumbnails":
        return [_encoded(_opened(data), (256, 256 * 415 // 500), 85) for data in fitting]
    return [_phone(_opened(data)) for data in fitting]


def _is_typical(data: bytes) -> bool:
    return max(_opened(data).size) >= _PHOTO_SIDES[0] and max(_opened(data).size) <= _PHOTO_SIDES[1]


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
