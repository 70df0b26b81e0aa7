"""Photos that show the same: perceptual hashes of the crops that the network sees, compared bit by bit."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.budget import whole_cores
from inference.errors import DataInvalid
from training.progress import Progress
from training.scan import LeftOut
from training.splits import Item

if TYPE_CHECKING:
    from training.dataset import Photos

Hashes = NDArray[np.uint64]

NEAR = 8
"""Bits of 64 that may differ. Copies that were compressed, resized or lightened stay below, different photos above:
benchmarks/near_duplicates.py measures both."""

TOO_MANY = 0.5
"""Share of a split's photos above which near ones mean that its pictures, as digits or drawings, are all alike."""

_BLOCK = 256  # photos compared with all others at once: bounds the table of distances


@dataclass(frozen=True)
class Pair:
    """Two photos of different splits, and how many of the 64 bits of their hashes differ."""

    photo: Item
    other: Item
    distance: int


def hash_of(image: Image.Image) -> np.uint64:
    """64 bits by the signs of an image's lowest frequencies (imagehash's phash)."""
    bits = np.packbits(imagehash.phash(image).hash)
    return np.uint64(int.from_bytes(bits.tobytes(), "big"))


def hashes_of(photos: "Photos", split: str) -> Hashes:
    """The hash of every photo of a split, uint64 (photos,), in the split's order."""
    items = photos.splits[split]
    # Training photos are kept whole, the others as crops: both are compared as what the network sees.
    crop = photos.recipe.preprocessing.crop_of

    def one(item: Item) -> np.uint64:
        return hash_of(Image.fromarray(crop(photos.image(item)) if split == "train" else photos.crop(item)))

    with ThreadPoolExecutor(whole_cores()) as pool, Progress(f"comparing {split}", len(items)) as progress:
        return np.array([progress.step(value) for value in pool.map(one, items)], np.uint64)


def near_pairs(photos: "Photos", hashes: dict[str, Hashes], split: str, others: tuple[str, ...]) -> list[Pair]:
    """For each photo of a split the one in other splits that is most like it, where one is near."""
    known = [(item, value) for name in others for item, value in zip(photos.splits[name], hashes[name], strict=True)]
    if not known:
        return []
    values = np.array([value for _, value in known], np.uint64)
    pairs = []
    for start in range(0, len(hashes[split]), _BLOCK):
        distances = np.bitwise_count(hashes[split][start : start + _BLOCK, None] ^ values[None, :])
        nearest = distances.argmin(axis=1)
        for row in np.flatnonzero(distances.min(axis=1) <= NEAR):
            column = nearest[row]
            pairs.append(Pair(photos.splits[split][start + row], known[column][0], int(distances[row, column])))
    return pairs


def drop_near(photos: "Photos") -> None:
    """Move training photos that are nearly one that the network is measured on from train to `left_out`.

    Raises DataInvalid where these are too many to be copies.
    """
    hashes = {split: hashes_of(photos, split) for split in photos.splits}
    measured = tuple(split for split in photos.splits if split != "train")
    pairs = {pair.photo: pair for pair in near_pairs(photos, hashes, "train", measured)}
    if len(pairs) > TOO_MANY * len(photos.splits["train"]):
        raise DataInvalid(
            f"{len(pairs):,} of {len(photos.splits['train']):,} training photos are nearly photos of other splits: too "
            "many to be copies, these pictures are too alike for this check; set data.near_duplicates: keep"
        )
    photos.left_out.extend(
        LeftOut(item.path, "data_invalid", f"not in train: nearly the same as {pair.other.path}")
        for item, pair in pairs.items()
    )
    photos.splits["train"][:] = [item for item in photos.splits["train"] if item not in pairs]
