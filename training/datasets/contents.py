"""What publishers' files hold, as pictures: photos in archives, MNIST's idx files, CIFAR-10's binary records."""

import gzip
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.errors import DataInvalid, ImageError
from inference.preprocessing import Preprocessing
from training.datasets.archives import LARGEST, Member, damage, members
from training.progress import say

Picture = tuple[str, bytes]
"""A file of a set: its path in the set's folder with forward slashes, and its bytes."""

IMAGES, LABELS = 0x00000803, 0x00000801
"""The magic numbers of idx files of unsigned bytes in three dimensions and in one."""

CIFAR_SIDE = 32
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_BATCHES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}


def photos(*places: tuple[str, str]) -> Callable[[Sequence[Path]], Iterator[Picture]]:
    """A reader of archives: a member whose whole name matches a pattern goes to the place that is written beside it.

    Everything else in the archive is passed over, and so is a photo that cannot be decoded, which is said.
    """
    patterns = [(re.compile(pattern), place) for pattern, place in places]

    def read(paths: Sequence[Path]) -> Iterator[Picture]:
        for path in paths:
            for member in members(path):
                found = next(
                    ((match, place) for pattern, place in patterns if (match := pattern.fullmatch(member.name))), None
                )
                if found and _readable(member, content := member.read()):
                    match, place = found
                    yield match.expand(place), content

    return read


def _readable(member: Member, content: bytes) -> bool:
    if member.name.endswith(".txt"):
        return True
    try:
        Preprocessing().decode(content)
    except ImageError as error:
        say(f"{member.name} is left out: {error.detail}")
        return False
    return True


def digits(paths: Sequence[Path]) -> Iterator[Picture]:
    """MNIST as PNG: `train/7/00015.png` is the 16th training picture, a seven.

    `paths` are images and labels of train, then of test, each gzipped or not. Raises DataInvalid.
    """
    for split, (images, labels) in (("train", paths[:2]), ("test", paths[2:])):
        pixels, classes = read_idx(images, IMAGES), read_idx(labels, LABELS)
        if len(pixels) != len(classes):
            raise DataInvalid(
                f"{images} holds {len(pixels)} pictures, {labels} {len(classes)} labels; fetch both again"
            )
        if (highest := int(classes.max(initial=0))) > 9:
            raise DataInvalid(f"{labels} holds the label {highest}, which is no digit; fetch it again")
        for index, (picture, label) in enumerate(zip(pixels, classes, strict=True)):
            yield f"{split}/{label}/{index:05}.png", png(picture)


def read_idx(path: Path, magic: int) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes, gzipped or not: uint8 (count,) or (count, height, width). Raises DataInvalid.

    Source: the format as the MNIST page describes it: magic number, one size per dimension, all big-endian 32 bit.
    """
    content = read_content(path)
    start = 4 + 4 * (magic & 0xFF)
    if content[:4] != magic.to_bytes(4, "big") or len(content) < start:
        found = f"0x{content[:4].hex()}" if content else "nothing"
        raise DataInvalid(f"{path} is no such idx file: it begins with {found}, not 0x{magic:08x}; fetch it again")
    shape = tuple(int.from_bytes(content[place : place + 4], "big") for place in range(4, start, 4))
    values = np.frombuffer(content, np.uint8, offset=start)
    if len(values) != math.prod(shape):
        raise DataInvalid(f"{path} holds {len(values):,} bytes for the shape {shape}; it is cut short, fetch it again")
    return values.reshape(shape)


def read_content(path: Path) -> bytes:
    """A file's bytes, uncompressed where it is gzipped. Raises DataInvalid."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            return file.read()
    with damage(path), gzip.open(path) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise DataInvalid(f"{path} unpacks to more than {LARGEST:,} bytes, far too many; fetch it again")
    return content


def cifar10(paths: Sequence[Path]) -> Iterator[Picture]:
    """CIFAR-10's binary version as PNG: `test/ship/0002.png`. Raises DataInvalid.

    Source of the format: the authors' page. A record is the label and the red, green and blue plane, row by row.
    """
    (path,) = paths
    splits = {name: split for split, names in CIFAR_BATCHES.items() for name in names}
    seen = set()
    for member in members(path):
        name = member.name.rpartition("/")[2]
        if name in splits:
            seen.add(name)
            yield from _records(path, name, member.read(), splits[name])
    if missing := sorted(splits.keys() - seen):
        raise DataInvalid(f"{path} lacks {', '.join(missing)}; is it the binary version? Fetch it again")


def _records(path: Path, name: str, content: bytes, split: str) -> Iterator[Picture]:
    planes = 3 * CIFAR_SIDE**2
    if not content or len(content) % (1 + planes):
        raise DataInvalid(f"{name} in {path} is not made of records of {1 + planes:,} bytes; fetch it again")
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + planes)
    pixels = records[:, 1:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE).transpose(0, 2, 3, 1)
    if (highest := int(records[:, 0].max())) >= len(CIFAR_CLASSES):
        raise DataInvalid(f"{name} in {path} holds the label {highest}, but there are ten classes; fetch it again")
    batch = name.removesuffix(".bin")
    for index, (picture, label) in enumerate(zip(pixels, records[:, 0], strict=True)):
        yield f"{split}/{CIFAR_CLASSES[label]}/{batch}-{index:05}.png", png(picture)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 (height, width) or (height, width, 3) as PNG; small pictures gain next to nothing from harder packing."""
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()
