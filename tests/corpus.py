"""Broken pictures, the same ones every time, for everything that reads pictures."""

import base64
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from PIL import Image

from tests.inference.fuzz import damaged, pictures

SEED = 20_260_102
DAMAGED_IMAGES = 760


class Broken(NamedTuple):
    """Bytes, and what is wrong with them."""

    name: str
    data: bytes


@cache
def broken_images() -> tuple[Broken, ...]:
    """Nearly nine hundred: pictures of every format with damage at random, and those that somebody thought about."""
    chance = random.Random(SEED)
    bases = pictures()
    random_damage = [
        Broken(f"damaged {index}", damaged(bases[index % len(bases)], chance)) for index in range(DAMAGED_IMAGES)
    ]
    return (*random_damage, *_cut_short(bases), *_bombs(), *_lying_headers(), *_other_types(bases[0]))


def _cut_short(bases: list[bytes]) -> Iterator[Broken]:
    for index, data in enumerate(bases):
        for length in (1, 4, 16, len(data) // 2, len(data) - 1):
            yield Broken(f"picture {index} cut to {length}", data[:length])
    yield Broken("nothing", b"")


def _bombs() -> Iterator[Broken]:
    """Small files that unfold to gigabytes, whole or in a part that is read before the pixels."""
    for width, height in ((30_000, 30_000), (65_000, 65_000), (2_000_000, 1), (1, 2_000_000)):
        yield Broken(
            f"PNG bomb {width} x {height}", png(width, height, bytes((width + 7) // 8 + 1) * min(height, 3000))
        )
    for kind, head in ((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")):
        yield Broken(f"PNG with a {kind.decode()} bomb", png(9, 9, bytes(20), chunk(kind, head + zeros(100))))
    yield Broken("PNG with a thousand texts", png(9, 9, bytes(20), chunk(b"tEXt", b"a\0" + b"b" * 500) * 1000))
    frames = [Image.new("P", (40, 40), shade) for shade in range(200)]
    encoded = io.BytesIO()
    frames[0].save(encoded, "GIF", save_all=True, append_images=frames[1:])
    yield Broken("GIF of two hundred frames", encoded.getvalue())


@cache
def zeros(mebibytes: int) -> bytes:
    """That many mebibytes of zeros, deflated."""
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(mebibytes)) + packer.flush()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, more: bytes = b"", depth: int = 1, colour: int = 0) -> bytes:
    """A PNG file whose header claims this size, whatever the rows are."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + data + chunk(b"IEND", b"")


def _lying_headers() -> Iterator[Broken]:
    for width, height in ((0, 0), (0, 9), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1), (5000, 5000)):
        yield Broken(f"PNG says {width} x {height}", png(width, height, bytes(20)))
    for depth, colour in ((3, 0), (16, 3), (8, 5), (0, 0), (255, 255)):
        yield Broken(f"PNG says depth {depth}, colour {colour}", png(9, 9, bytes(99), b"", depth, colour))
    for side in (0, 1, 30_000, 65_535):
        frame = struct.pack(">HBHHB", 11, 8, side, side, 1)
        yield Broken(f"JPEG says {side}", b"\xff\xd8\xff\xc0" + frame + b"\1\x11\0\xff\xd9")
        screen = struct.pack("<HHBBB", side, side, 0, 0, 0) + b"," + struct.pack("<HHHHBB", 0, 0, side, side, 0, 8)
        yield Broken(f"GIF says {side}", b"GIF89a" + screen)
        sizes = struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, side, -side, 1, 24, 0, 0, 0, 0, 0, 0)
        yield Broken(f"BMP says {side}", b"BM" + sizes)
        canvas = b"VP8X" + struct.pack("<II", 10, 0) + (side.to_bytes(3, "little")) * 2
        yield Broken(f"WebP says {side}", b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas)
        yield Broken(f"TIFF says {side}", tiff([(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (273, 4, 1, 8)]))
    yield Broken("TIFF whose directory is itself", b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8))
    yield Broken("TIFF with sixty thousand tags", tiff([(1000 + index, 4, 1, 9) for index in range(60_000)]))
    yield Broken("TIFF with a tag of four gibibytes", tiff([(256, 4, 2**30, 8), (257, 4, 2**32 - 1, 8)]))
    yield Broken("JPEG of endless segments", b"\xff\xd8" + b"\xff\xe1\0\2" * 100_000)
    yield Broken("JPEG of empty segments", b"\xff\xd8" + b"\xff\xe1\0\0" * 1000)
    yield Broken("JPEG of fill bytes", b"\xff\xd8" + b"\xff" * 1_000_000)


def tiff(tags: list[tuple[int, int, int, int]]) -> bytes:
    """A TIFF file of one directory; a tag is its number, type, count and value."""
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        + bytes(4)
    )


def _other_types(picture: bytes) -> Iterator[Broken]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(zipfile.ZipInfo("a.jpg"), picture)
    yield Broken("ZIP", archive.getvalue())
    yield Broken("picture and ZIP in one", picture + archive.getvalue())
    yield Broken("ZIP and picture in one", archive.getvalue() + picture)
    for name, data in {
        "text": b"hello",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "XML entities": b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + b"&b;" * 1000,
        "PDF": b"%PDF-1.7\n1 0 obj\n",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "ELF": b"\x7fELF" + bytes(60),
        "pickle": b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R.",
        "NumPy": b"\x93NUMPY\1\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "ICO": b"\0\0\1\0\1\0\0\0\0\0\1\0\x18\0" + bytes(16),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(40),
        "MP4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(40),
        "PPM": b"P6 99999 99999 255\n" + bytes(40),
        "XPM": b"/* XPM */ static char *a[] = {",
        "DICOM": bytes(128) + b"DICM",
        "base64": base64.b64encode(picture),
        "zeros": bytes(4096),
        "gzip": b"\x1f\x8b\x08\0" + bytes(100),
        "HTML": b"<html><script>alert(1)</script></html>",
    }.items():
        yield Broken(name, data)
