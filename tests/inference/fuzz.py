"""Damages pictures of every format at random and prints what preprocessing makes of them, as JSON.

Run by test_damage.py in a process of its own, so that warnings and memory are those of a real service.
"""

import io
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from inference.errors import ImageError
from inference.preprocessing import Preprocessing

SMALL = Preprocessing(resize=36, crop=32)
MAX_PIXELS = 10_000_000
EXTREMES = (0, 1, 127, 128, 255)


def pictures() -> list[bytes]:
    noise = np.random.RandomState(0).randint(0, 256, (40, 52, 3)).astype(np.uint8)
    rgb = Image.fromarray(noise)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.ImageDescription] = "a picture"
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, "JPEG", {"exif": exif}),
        (rgb, "JPEG", {"progressive": True}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "MPO", {"save_all": True, "append_images": [rgb]}),
        (rgb, "PNG", {"exif": exif}),
        (rgb.convert("P"), "PNG", {"transparency": b"\0\1\2"}),
        (Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG", {}),
        (rgb, "WEBP", {"exif": exif}),
        (rgb.convert("RGBA"), "WEBP", {"lossless": True, "save_all": True, "append_images": [rgb]}),
        (rgb, "GIF", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgb, "BMP", {}),
        (rgb.convert("P"), "BMP", {}),
        (rgb, "TIFF", {"exif": exif}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (rgb.convert("F"), "TIFF", {}),
        (rgb.convert("I"), "TIFF", {}),
        (rgb, "AVIF", {"exif": exif}),
    ]
    made = []
    for image, kind, options in kinds:
        encoded = io.BytesIO()
        image.save(encoded, kind, **options)
        made.append(encoded.getvalue())
    return made


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Cut short, or with a few bytes changed, lost or added, in the header as often as anywhere."""
    if chance.random() < 0.3:
        return data[: chance.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8, 30))):
        place = chance.randrange(len(changed) if chance.random() < 0.5 else min(len(changed), 200))
        match chance.randrange(4):
            case 0:
                changed[place] = chance.choice(EXTREMES)
            case 1:
                changed[place] ^= 1 << chance.randrange(8)
            case 2:
                del changed[place : place + chance.randrange(1, 9)]
            case 3:
                changed[place:place] = chance.randbytes(chance.randrange(1, 9))
    return bytes(changed)


def main(count: int) -> None:
    chance = random.Random(20_260_101)
    bases = pictures()
    outcomes: Counter[str] = Counter()
    wrong = []
    for index in range(count):
        data = damaged(bases[index % len(bases)], chance)
        try:
            crop = SMALL(data, MAX_PIXELS)
        except ImageError as error:
            outcomes[error.code] += 1
        except BaseException as error:  # noqa: BLE001 – that is what is looked for
            wrong.append(f"{index}: {error!r}")
        else:
            outcomes["crop"] += 1
            if crop.shape != (32, 32, 3) or crop.dtype != np.uint8:
                wrong.append(f"{index}: {crop.dtype} {crop.shape}")
    print(json.dumps({"outcomes": outcomes, "wrong": wrong, "memory_mib": peak_memory_mib()}))


def peak_memory_mib() -> int:
    # getrusage would count what the parent process held when it started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


if __name__ == "__main__":
    main(int(sys.argv[1]))
