"""Damaged, hostile and huge pictures end as their own typed error, within bounds."""

import json
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from inference.errors import ImageEmpty, ImageTooManyPixels, ImageTruncated, ImageUnsupported
from inference.preprocessing import Preprocessing

SMALL = Preprocessing(resize=36, crop=32)


def test_random_damage(python: Callable[..., object]) -> None:
    done = python(Path(__file__).with_name("fuzz.py"), "6000")
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert "Warning" not in done.stderr
    assert found["memory_mib"] < 300
    # The damage is neither always fatal nor always harmless.
    assert sum(found["outcomes"].values()) == 6000
    assert found["outcomes"]["crop"] > 600
    assert found["outcomes"]["image_truncated"] > 600
    assert found["outcomes"]["image_unsupported"] > 60
    assert found["outcomes"]["image_too_many_pixels"] > 10


BOMBS = """
import struct, sys, time, zlib
from pathlib import Path
from inference.errors import ImageTooManyPixels
from inference.preprocessing import Preprocessing

def png(width, height):
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    packer = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

def peak_mib():
    # getrusage would count what the parent process held when it started this one.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024

bombs = [png(30_000, 30_000), png(65_000, 1), png(1, 65_000)]
Preprocessing()(png(300, 300))
before, began = peak_mib(), time.monotonic()
for bomb in bombs:
    try:
        Preprocessing()(bomb)
    except ImageTooManyPixels as error:
        print(error)
assert peak_mib() - before < 32, f"{peak_mib() - before} MiB"
assert time.monotonic() - began < 2
"""


def test_bombs_are_refused_before_they_unfold(python: Callable[..., object]) -> None:
    done = python("-c", BOMBS)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, third = done.stdout.splitlines()
    assert first.startswith("the picture has 30000 × 30000 pixels, the limit is 89,478,485")
    assert "16640000 × 256 pixels once resized" in second
    assert "256 × 16640000 pixels once resized" in third


def headers() -> dict[str, bytes]:
    """Pictures that claim a size and hold nothing."""
    jpeg = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 65500, 65500, 1) + b"\1\x11\0\xff\xd9"
    screen, frame = struct.pack("<HHBBB", 65535, 65535, 0, 0, 0), struct.pack("<HHHHBB", 0, 0, 65535, 65535, 0, 8)
    gif = b"GIF89a" + screen + b"," + frame
    bmp = b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    return {"JPEG": jpeg, "GIF": gif, "BMP": bmp}


@pytest.mark.parametrize("kind", headers())
def test_claimed_sizes_are_refused(kind: str) -> None:
    with pytest.raises(ImageTooManyPixels):
        SMALL(headers()[kind])


def test_no_bytes() -> None:
    with pytest.raises(ImageEmpty, match="has no bytes; send"):
        SMALL(b"")


@pytest.mark.parametrize(
    "data",
    [b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"%!PS-Adobe-3.0 EPSF-3.0", b"\0" * 64],
    ids=["text", "svg", "pdf", "postscript", "zeros"],
)
def test_not_a_picture(data: bytes) -> None:
    with pytest.raises(ImageUnsupported, match="JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF"):
        SMALL(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_cut_short(picture: Callable[..., bytes], kind: str) -> None:
    data = picture(kind=kind)
    with pytest.raises(ImageTruncated, match="send the whole file"):
        SMALL(data[: len(data) // 2])
    with pytest.raises(ImageTruncated, match="send the whole file"):
        SMALL(data[:20])


def test_damaged_pixels_are_not_guessed() -> None:
    header = struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = bytearray(zlib.compress(bytes(90)))
    rows[2] ^= 0xFF
    with pytest.raises(ImageTruncated, match="the PNG data is cut short or damaged"):
        SMALL(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", bytes(rows)) + chunk(b"IEND", b""))


def test_eight_threads_give_the_crops_of_one(picture: Callable[..., bytes]) -> None:
    kinds = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]
    pictures = [picture(size=(90 + index, 70), kind=kinds[index % 7], seed=index) for index in range(28)] * 8
    alone = [SMALL(data) for data in pictures[:28]] * 8
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(SMALL, pictures))
    assert_array_equal(together, alone)
