"""How many bits of a perceptual hash may differ in copies of one photo, and how many do in different photos.

    python benchmarks/near_duplicates.py --data DATA

DATA holds folders of photos, in any depth; 550 are drawn from them. The answer is training/duplicates.py's NEAR.
"""

import argparse
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from inference.errors import ImageError
from inference.preprocessing import Preprocessing
from training.duplicates import hash_of

LIMITS = (2, 4, 6, 8, 10, 12, 14, 16)


def compressed(image: Image.Image) -> Image.Image:
    """As JPEG of quality 30."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(io.BytesIO(file.getvalue()))


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Without this share at every edge."""
    x, y = (round(side * share) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 30": compressed,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "30 % lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "3 % cut off at every edge": lambda image: cropped(image, 0.03),
    "8 % cut off at every edge": lambda image: cropped(image, 0.08),
}


def main() -> None:
    """Print, for each number of bits, the share of pairs that differ in as many or fewer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=550)
    chosen = parser.parse_args()
    files = sorted(path for path in chosen.data.rglob("*.jpg"))
    preprocessing = Preprocessing()
    hashes, copies = [], {name: [] for name in ALTERED}
    for path in random.Random(0).sample(files, min(chosen.photos, len(files))):
        try:
            image = preprocessing.decode(path.read_bytes()).image
        except ImageError:
            continue
        own = hash_of(Image.fromarray(preprocessing.crop_of(image)))
        hashes.append(own)
        for name, alter in ALTERED.items():
            other = hash_of(Image.fromarray(preprocessing.crop_of(alter(image))))
            copies[name].append(int(np.bitwise_count(own ^ other)))
    values = np.array(hashes, np.uint64)
    apart = np.bitwise_count(values[:, None] ^ values[None, :])[np.triu_indices(len(values), 1)]
    print(f"| {len(values)} photos | " + " | ".join(f"≤ {limit}" for limit in LIMITS) + " |")
    print("|---" * (len(LIMITS) + 1) + "|")
    for name, bits in {f"different photos ({len(apart):,} pairs)": apart, **copies}.items():
        shares = (float((np.asarray(bits) <= limit).mean()) for limit in LIMITS)
        print(f"| {name} | " + " | ".join(f"{share:.3%}" for share in shares) + " |")


if __name__ == "__main__":
    main()
