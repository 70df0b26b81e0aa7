"""How many pixels a picture will have, from its first bytes, in microseconds.

Pillow's readers would say it too, but a hostile header keeps some of them busy for long, and this runs on the event
loop. It is an estimate of work, no check: decoding has its own limit and takes nobody's word.
"""

import struct

_FIXED = (
    (b"\x89PNG", struct.Struct(">16x2I"), 0xFFFFFFFF),
    (b"GIF8", struct.Struct("<6x2H"), 0xFFFF),
    (b"BM", struct.Struct("<18x2i"), 0xFFFFFFFF),
    (b"RIFF", struct.Struct("<26x2H"), 0x3FFF),
)
"""Where width and height stand, by signature; WebP's place is that of its lossy form, the usual one."""

_JPEG = b"\xff\xd8"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MAX_SEGMENTS = 64
_PIXELS_PER_BYTE = 8
"""Of compressed pictures whose header is not read here; photos have about this many."""


def pixels(data: bytes) -> int:
    """Width × height as the header claims it, or a guess from the size."""
    if data.startswith(_JPEG):
        return _of_jpeg(data)
    for signature, fields, mask in _FIXED:
        if data.startswith(signature) and len(data) >= fields.size:
            width, height = fields.unpack_from(data)
            return int((abs(width) & mask) * (abs(height) & mask))
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
    return len(data) * _PIXELS_PER_BYTE
