"""JPEGs of very many scans: few bytes, and minutes of work."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from inference.errors import ImageUnsupported
from inference.jpeg import MAX_SCANS, too_many_scans
from inference.preprocessing import Preprocessing

END = b"\xff\xd9"


def progressive(**options: object) -> bytes:
    encoded = io.BytesIO()
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(encoded, "JPEG", progressive=True, **options)
    return encoded.getvalue()


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are so many."""
    data = progressive()
    last = data[data.rindex(b"\xff\xda") : -len(END)]
    return data[: -len(END)] + last * (count - data.count(b"\xff\xda")) + END


def test_a_picture_of_many_scans_is_refused_before_they_are_decoded() -> None:
    assert Preprocessing()(with_scans(MAX_SCANS)).shape == (224, 224, 3)
    with pytest.raises(ImageUnsupported, match=r"more than 100 scans.*save it anew"):
        Preprocessing()(with_scans(MAX_SCANS + 1))
    with pytest.raises(ImageUnsupported):
        Preprocessing()(with_scans(MAX_SCANS + 1)[: -len(END)])


def test_what_looks_like_scans_beside_the_picture_is_none() -> None:
    film = os.urandom(1000) + b"\xff\xda" * 1000
    assert not too_many_scans(progressive() + film)
    assert not too_many_scans(progressive(exif=b"Exif\0\0" + b"\xff\xda" * 1000))
    assert Preprocessing()(progressive() + film).shape == (224, 224, 3)


@pytest.mark.parametrize(
    "data", [b"\xff\xda\0\x02" * 1_000_000, b"\xff\xe0\0\0" * 1_000_000 + b"\xff\xda" * 101, b"\xff\xda\xff" * 101]
)
def test_no_bytes_take_long(data: bytes) -> None:
    assert isinstance(too_many_scans(data), bool)
