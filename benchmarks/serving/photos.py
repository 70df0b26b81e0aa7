"""The three kinds of pictures, made from a folder of photos: as for the web, as from a phone, and thumbnails."""

import io
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


@dataclass(frozen=True)
class Kind:
    """Width and height in pixels; grain (standard deviation) and JPEG quality that give the bytes wanted.

    Grain stands for the detail that enlarging cannot add.
    """

    size: tuple[int, int]
    grain: float
    quality: int


KINDS = {
    "photos": Kind((500, 415), 4.0, 82),
    "phone": Kind((4000, 3000), 6.0, 89),
    "thumbnails": Kind((256, 212), 3.0, 85),
}


def pictures(folder: Path, kind: Kind, count: int) -> list[bytes]:
    """`count` encoded JPEG pictures of one kind, always the same for the same folder."""
    files = sorted(folder.rglob("*.jpg"))
    if len(files) < count:
        raise SystemExit(f"{folder} holds {len(files)} photos (*.jpg), {count} are wanted; name a folder with more")
    return [_picture(path, kind, seed) for seed, path in enumerate(random.Random(0).sample(files, count))]


def _picture(path: Path, kind: Kind, seed: int) -> bytes:
    """The photo's middle in the kind's shape, enlarged or reduced, with grain."""
    with Image.open(path) as photo:
        image = ImageOps.fit(photo.convert("RGB"), kind.size, Image.Resampling.BICUBIC)
    grain = np.random.default_rng(seed).normal(0, kind.grain, (*kind.size[::-1], 1)).astype(np.float32)
    grainy = Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))
    target = io.BytesIO()
    grainy.save(target, "JPEG", quality=kind.quality)
    return target.getvalue()
