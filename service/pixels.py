"""How many pixels a picture will have, from its first bytes, in microseconds.

Pillow's readers would say it too, but a hostile header keeps some of them busy for long, and this runs on the event
loop. It is an estimate of work, no check: decoding has its own limit and takes nobody's word.
"""

import re
import struct

_FIXED = (
    (b"\x89PNG", struct.Struct(">16x2I")),
    (b"GIF8", struct.Struct("<6x2H")),
    (b"BM", struct.Struct("<18x2i")),
)
"""Where width and height stand, by signature."""

_JPEG = b"\xff\xd8"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MAX_SEGMENTS = 64

_TIFF = (b"II*\0", b"MM\0*")
_MAX_TAGS = 64
_WIDTH, _LENGTH = 256, 257

_EXTENT = re.compile(rb"ispe\0{4}(.{4})(.{4})", re.DOTALL)
_AVIF_HEADER_BYTES = 4096

_PIXELS_PER_BYTE = 8
"""Of compressed pictures whose header is not read here; photos have about this many."""


def pixels(data: bytes) -> int:
    """Width × height as the header claims it, or a guess from the size."""
    if data.startswith(_JPEG):
        return _of_jpeg(data)
    for signature, fields in _FIXED:
        if data.startswith(signature) and len(data) >= fields.size:
            width, height = fields.unpack_from(data)
            return int(abs(width) * abs(height))
    if data[8:12] == b"WEBP" and len(data) >= 30:
        return _of_webp(data)
    if data[:4] in _TIFF:
        return _of_tiff(data)
    if data[4:8] == b"ftyp":
        return _of_avif(data)
    return _guess(data)


def _guess(data: bytes) -> int:
    return len(data) * _PIXELS_PER_BYTE


def _of_jpeg(data: bytes) -> int:
    """The size in the first frame header, which stands behind few segments in any ordinary file."""
    at = len(_JPEG)
    for _ in range(_MAX_SEGMENTS):
        if len(data) < at + 9 or data[at] != 0xFF:
            break
        length, height, width = struct.unpack_from(">HxHH", data, at + 2)
        if data[at + 1] in _FRAMES:
            return int(height * width)
        at += 2 + length
    return _guess(data)


def _of_webp(data: bytes) -> int:
    """Lossy, lossless, or extended, which has a canvas."""
    if data[12:16] == b"VP8 ":
        width, height = struct.unpack_from("<2H", data, 26)
        return int((width & 0x3FFF) * (height & 0x3FFF))
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    return (int.from_bytes(data[24:27], "little") + 1) * (int.from_bytes(data[27:30], "little") + 1)


def _of_tiff(data: bytes) -> int:
    """The size among the first directory's tags, which are sorted."""
    order = "<" if data.startswith(b"II") else ">"
    at = struct.unpack_from(f"{order}I", data, 4)[0] if len(data) >= 8 else len(data)
    tags = data[at + 2 : at + 2 + 12 * _MAX_TAGS]
    found: dict[int, int] = {}
    for start in range(0, len(tags) - 11, 12):
        tag, kind, long = struct.unpack_from(f"{order}2H4xI", tags, start)
        (short,) = struct.unpack_from(f"{order}H", tags, start + 8)
        found.setdefault(tag, short if kind == 3 else long)
    return found.get(_WIDTH, 0) * found.get(_LENGTH, 0) or _guess(data)


def _of_avif(data: bytes) -> int:
    """The largest of the extents; the others are those of tiles and thumbnails."""
    extents = _EXTENT.findall(data, 0, _AVIF_HEADER_BYTES)
    return max((int.from_bytes(w) * int.from_bytes(h) for w, h in extents), default=0) or _guess(data)
