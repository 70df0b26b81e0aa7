"""The cheap look at a header against Pillow's."""

import io
import struct
import time
from collections.abc import Callable

import pytest
from PIL import Image

from service.pixels import pixels


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF"])
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


def test_the_three_forms_of_webp_are_read() -> None:
    photo = Image.new("RGBA", (1024, 768), (200, 100, 50, 128))
    for options in ({}, {"lossless": True}, {"lossless": True, "exif": b"Exif\0\0" + b"x" * 50}):
        encoded = io.BytesIO()
        photo.save(encoded, "WEBP", **options)
        assert pixels(encoded.getvalue()) == 1024 * 768


def test_tiff_is_read_in_both_orders(picture: Callable[..., bytes]) -> None:
    little = b"II*\0\x08\0\0\0\x02\0" + struct.pack("<2H2I2H2I", 256, 3, 1, 700, 257, 4, 1, 500)
    big = b"MM\0*\0\0\0\x08\0\x02" + struct.pack(">2HI2H2H2I", 256, 3, 1, 700, 0, 257, 4, 1, 500)
    assert pixels(little) == pixels(big) == 350_000


def test_what_tells_no_size_counts_by_its_bytes() -> None:
    assert pixels(b"text" * 100) == 3200


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
        b"II*\0",
        b"II*\0" + b"\xff" * 4_000_000,
        b"MM\0*\0\0\0\x08" + b"\1\0" * 2_000_000,
        b"\0\0\0\x1cftyp" + b"ispe\0\0\0\0" * 1_000_000,
        b"RIFF\0\0\0\0WEBPVP8X",
    ],
    ids=range(15),
)
def test_no_header_takes_long_or_fails(data: bytes) -> None:
    start = time.perf_counter()
    assert pixels(data) >= 0
    assert time.perf_counter() - start < 0.01
