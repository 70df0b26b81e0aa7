"""Large pictures become RGB strip by strip: the same bytes, and less memory on the way."""

import io
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from inference import preprocessing
from inference.preprocessing import Preprocessing

WIDTH, HEIGHT = 97, 61
CHANCE = np.random.RandomState(0)
BYTES = CHANCE.randint(0, 256, (HEIGHT, WIDTH, 4)).astype(np.uint8)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    return encoded.getvalue()


def _floats(top: float) -> bytes:
    values = (CHANCE.random_sample((HEIGHT, WIDTH)) * top).astype(np.float32)
    values[0, :3] = np.nan, -1, np.inf if top > 1 else 0
    values[-1, -1] = top
    return _saved(Image.fromarray(values), "TIFF")


PICTURES = {
    "RGBA": _saved(Image.fromarray(BYTES), "PNG"),
    "LA": _saved(Image.fromarray(BYTES).convert("LA"), "PNG"),
    "L": _saved(Image.fromarray(BYTES[..., 0]), "PNG"),
    "L transparent": _saved(Image.fromarray(BYTES[..., 0]), "PNG", transparency=7),
    "RGB transparent": _saved(Image.fromarray(BYTES[..., :3] // 128), "PNG", transparency=(1, 1, 1)),
    "P": _saved(Image.fromarray(BYTES[..., :3]).quantize(64), "PNG"),
    "P transparent": _saved(Image.fromarray(BYTES[..., :3]).quantize(64), "PNG", transparency=3),
    "P of alpha": _saved(Image.fromarray(BYTES[..., :3]).quantize(64), "PNG", transparency=bytes(range(64))),
    "GIF": _saved(Image.fromarray(BYTES[..., :3]).quantize(64), "GIF", transparency=3),
    "1": _saved(Image.fromarray(BYTES[..., 0]).convert("1"), "PNG"),
    "CMYK": _saved(Image.fromarray(BYTES).convert("RGB").convert("CMYK"), "JPEG"),
    "I;16": _saved(Image.fromarray(BYTES[..., 0].astype(np.uint16) * 257), "PNG"),
    "I": _saved(Image.fromarray(BYTES[..., 0].astype(np.int32) * 300), "TIFF"),
    "F of 1": _floats(1.0),
    "F of 300": _floats(300.0),
}


@pytest.mark.parametrize("alpha", ["white", "drop"])
@pytest.mark.parametrize("name", PICTURES)
def test_strips_give_the_same_bytes(
    name: str, alpha: Literal["white", "drop"], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Preprocessing(alpha=alpha).decode
    whole = np.asarray(decode(PICTURES[name]).image)
    for size in (1, WIDTH * 7, WIDTH * (HEIGHT - 1)):
        monkeypatch.setattr(preprocessing, "_STRIP_PIXELS", size)
        assert_array_equal(np.asarray(decode(PICTURES[name]).image), whole)


MEASURED = """
import io, sys
from pathlib import Path
from PIL import Image
from inference.preprocessing import Preprocessing

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024

encoded = io.BytesIO()
image = Image.new(sys.argv[1], (5000, 5000), 0)
image.save(encoded, sys.argv[2], compression="tiff_adobe_deflate", compress_level=1)
size = image.size
del image
Path("/proc/self/clear_refs").write_text("5")
before = peak()
Preprocessing()(encoded.getvalue())
print((peak() - before) / (size[0] * size[1]))
"""


@pytest.mark.parametrize(
    ("mode", "kind"), [("LA", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("F", "TIFF")]
)
def test_no_mode_takes_more_than_a_dozen_bytes_a_pixel(python: Callable[..., object], mode: str, kind: str) -> None:
    done = python("-c", MEASURED, mode, kind)
    assert float(done.stdout) < 10, done.stdout
