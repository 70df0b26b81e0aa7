"""Every kind of picture that is sent sooner or later becomes the right RGB."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from inference.preprocessing import Preprocessing

RED, GREEN = (220, 30, 30), (30, 200, 40)
SIZE = (40, 52)
SMALL = Preprocessing(resize=36, crop=32)

Pixels = NDArray[np.uint8]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG of a kind that Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def flat(mode: str, colour: Any) -> Image.Image:
    return Image.new(mode, SIZE, colour)


def deep(value: float, dtype: str) -> Image.Image:
    return Image.fromarray(np.full((SIZE[1], SIZE[0]), value, dtype))


def palette(colour: tuple[int, int, int]) -> Image.Image:
    image = Image.new("P", SIZE, 1)
    image.putpalette([0, 0, 0, *colour])
    return image


def lab() -> Image.Image:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    converted = ImageCms.applyTransform(flat("RGB", RED), to_lab)
    assert converted is not None
    return converted


def rgb16() -> bytes:
    row = b"\0" + struct.pack(">HHH", 220 << 8 | 255, 30 << 8 | 255, 30 << 8) * 8
    return png(8, 8, 16, 2, row * 8)


GREY = (97, 97, 97)
WHITE = (255, 255, 255)
KINDS: dict[str, tuple[Callable[[], bytes], tuple[int, int, int]]] = {
    "RGB": (lambda: encoded(flat("RGB", RED), "PNG"), RED),
    "L": (lambda: encoded(flat("L", 97), "PNG"), GREY),
    "L jpeg": (lambda: encoded(flat("L", 97), "JPEG"), GREY),
    "LA opaque": (lambda: encoded(flat("LA", (97, 255)), "PNG"), GREY),
    "LA clear": (lambda: encoded(flat("LA", (97, 0)), "PNG"), WHITE),
    "L with a clear grey": (lambda: encoded(flat("L", 97), "PNG", transparency=97), WHITE),
    "RGB with a clear colour": (lambda: encoded(flat("RGB", RED), "PNG", transparency=RED), WHITE),
    "P": (lambda: encoded(palette(RED), "PNG"), RED),
    "P clear": (lambda: encoded(palette(RED), "PNG", transparency=1), WHITE),
    "P with clear entries": (lambda: encoded(palette(RED), "PNG", transparency=b"\xff\x00"), WHITE),
    "P gif": (lambda: encoded(palette(RED), "GIF"), RED),
    "RGBA opaque": (lambda: encoded(flat("RGBA", (*RED, 255)), "PNG"), RED),
    "RGBA clear": (lambda: encoded(flat("RGBA", (*RED, 0)), "PNG"), WHITE),
    "RGBA half clear": (lambda: encoded(flat("RGBA", (220, 30, 30, 128)), "PNG"), (237, 142, 142)),
    "RGBA webp": (lambda: encoded(flat("RGBA", (*RED, 0)), "WEBP", lossless=True), WHITE),
    "CMYK jpeg": (lambda: encoded(flat("RGB", RED).convert("CMYK"), "JPEG", quality=100), RED),
    "CMYK tiff": (lambda: encoded(flat("RGB", RED).convert("CMYK"), "TIFF"), RED),
    "YCbCr tiff": (lambda: encoded(flat("RGB", RED).convert("YCbCr"), "TIFF"), RED),
    "LAB tiff": (lambda: encoded(lab(), "TIFF"), RED),
    "1": (lambda: encoded(flat("1", 1), "PNG"), WHITE),
    "1 tiff": (lambda: encoded(flat("1", 0), "TIFF"), (0, 0, 0)),
    "I;16 png": (lambda: encoded(deep(97 << 8 | 255, "<u2"), "PNG"), GREY),
    "I;16 tiff": (lambda: encoded(deep(97 << 8 | 255, "<u2"), "TIFF"), GREY),
    "I;16B tiff": (lambda: encoded(deep(97 << 8 | 255, ">u2"), "TIFF"), GREY),
    "RGB of 16 bits": (rgb16, RED),
    "I tiff": (lambda: encoded(deep(97 << 8, "<i4"), "TIFF"), GREY),
    "I beyond 16 bits": (lambda: encoded(deep(1 << 20, "<i4"), "TIFF"), WHITE),
    "I below 0": (lambda: encoded(deep(-5, "<i4"), "TIFF"), (0, 0, 0)),
    "F to 255": (lambda: encoded(deep(97.0, "<f4"), "TIFF"), GREY),
    "F to 1": (lambda: encoded(deep(0.5, "<f4"), "TIFF"), (127, 127, 127)),
    "F not a number": (lambda: encoded(deep(np.nan, "<f4"), "TIFF"), (0, 0, 0)),
    "F infinite": (lambda: encoded(deep(np.inf, "<f4"), "TIFF"), WHITE),
    "bmp": (lambda: encoded(flat("RGB", RED), "BMP"), RED),
    "avif": (lambda: encoded(flat("RGB", RED), "AVIF", quality=100), RED),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kind_becomes_rgb(kind: str) -> None:
    make, colour = KINDS[kind]
    crop = SMALL(make())
    assert crop.shape == (32, 32, 3)
    assert crop.dtype == np.uint8
    # JPEG, AVIF and the colour spaces of print round; a wrong conversion is tens away.
    assert np.abs(crop.astype(int) - colour).max() <= 4


def test_alpha_can_be_dropped_instead() -> None:
    data = encoded(flat("RGBA", (*RED, 0)), "PNG")
    assert_array_equal(Preprocessing(resize=36, crop=32, alpha="drop")(data)[0, 0], RED)


def frames(kind: str, **options: Any) -> bytes:
    return encoded(flat("RGB", RED), kind, save_all=True, append_images=[flat("RGB", GREEN)], **options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("AVIF", {"quality": 100}), ("MPO", {})],
)
def test_first_frame_counts(kind: str, options: dict[str, Any]) -> None:
    data = frames(kind, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert np.abs(SMALL(data).astype(int) - RED).max() <= 4


def test_default_image_of_an_apng_is_its_first_frame() -> None:
    data = frames("PNG", default_image=True)
    assert_array_equal(SMALL(data)[0, 0], RED)


# --- orientation ------------------------------------------------------------------------------------------------------

UPRIGHT: Pixels = np.arange(7 * 5 * 3, dtype=np.uint8).reshape(7, 5, 3) * 2
STORED: dict[int, Pixels] = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.swapaxes(0, 1),
    6: np.rot90(UPRIGHT),
    7: UPRIGHT[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(UPRIGHT, -1),
}
"""What a camera stores for an upright picture, by the EXIF standard's (CIPA DC-008) meaning of each orientation."""


def oriented(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}[kind]
    return encoded(Image.fromarray(np.ascontiguousarray(STORED[orientation])), kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied(orientation: int, kind: str) -> None:
    assert_array_equal(np.asarray(SMALL.decode(oriented(orientation, kind)).image), UPRIGHT)


@pytest.mark.parametrize("orientation", STORED)
def test_orientation_can_be_ignored(orientation: int) -> None:
    as_stored = Preprocessing(orientation="ignore").decode(oriented(orientation, "PNG")).image
    assert_array_equal(np.asarray(as_stored), STORED[orientation])


def jpeg_with_exif(exif: bytes) -> bytes:
    return encoded(Image.new("RGB", (40, 80), RED), "JPEG", exif=b"Exif\0\0" + exif)


def exif_entries(*entries: tuple[int, int, int, bytes]) -> bytes:
    """One big-endian directory of (tag, type, count, four bytes of value)."""
    body = b"".join(struct.pack(">HHI", *head) + value for *head, value in entries)
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + body + b"\0\0\0\0"


ORIENTATION_6 = (0x0112, 3, 1, b"\0\x06\0\0")


@pytest.mark.parametrize(
    "neighbour",
    [
        (0x0100, 2, 4, b"abc\0"),  # ImageWidth as text
        (0x0128, 4, 1, b"\0\x02\0\0"),  # ResolutionUnit as a long beyond its range
        (0x013B, 3, 1, b"\0\x01\0\0"),  # Artist as a number
    ],
)
def test_orientation_survives_damaged_neighbours(neighbour: tuple[int, int, int, bytes]) -> None:
    entries = sorted([ORIENTATION_6, neighbour])
    assert SMALL.decode(jpeg_with_exif(exif_entries(*entries))).image.size == (80, 40)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as inference.preprocessing sets for the whole process
@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"garbage",
        b"MM\0*\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
        exif_entries((0x0112, 3, 1, b"\0\0\0\0")),
        exif_entries((0x0112, 3, 1, b"\0\x09\0\0")),
        exif_entries((0x0112, 2, 2, b"6\0\0\0")),
        exif_entries((0x0112, 12, 1, b"\0\0\0\x02")),
    ],
    ids=range(8),
)
def test_damaged_exif_leaves_the_picture_as_it_is(exif: bytes) -> None:
    assert SMALL.decode(jpeg_with_exif(exif)).image.size == (40, 80)
