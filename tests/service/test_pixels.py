"""The cheap look at a header against Pillow's."""

import io
import time
from collections.abc import Callable

import pytest
from PIL import Image

from service.pixels import pixels


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("size", [(320, 240), (1, 700), (1201, 3)])
def test_the_header_is_read_as_pillow_reads_it(picture: Callable[..., bytes], kind: str, size: tuple[int, int]) -> None:
    data = picture(kind=kind, size=size)
    assert pixels(data) == size[0] * size[1]


def test_a_photo_with_exif_and_profile_is_read(picture: Callable[..., bytes]) -> None:
    encoded = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "x" * 30_000
    Image.open(io.BytesIO(picture())).save(encoded, "JPEG", exif=exif, icc_profile=b"x" * 100_000, progressive=True)
    assert pixels(encoded.getvalue()) == 320 * 240


@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
def test_other_formats_count_by_their_size(picture: Callable[..., bytes], kind: str) -> None:
    data = picture(kind=kind)
    assert pixels(data) == 8 * len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\x89PNG",
        b"GIF89a",
        b"BM",
        b"RIFF",
        b"\xff\xd8" + b"\xff\xe0\0\0" * 1_000_000,
        b"\xff\xd8\xff\xe0\xff\xff" + b"\0" * 100,
        b"\xff\xd8" + b"\0" * 4_000_000,
        b"BM" + b"\xff" * 100,
    ],
    ids=range(10),
)
def test_no_header_takes_long_or_fails(data: bytes) -> None:
    start = time.perf_counter()
    assert pixels(data) >= 0
    assert time.perf_counter() - start < 0.01
