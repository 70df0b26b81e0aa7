"""Golden inputs: crops made by code, the same on every machine, that prove a model where it is loaded.

The manifest holds PyTorch's logits for them; `inference.classifier` replays them on the runtime and device at hand.
"""

import numpy as np
from numpy.typing import NDArray

from inference.preprocessing import Crop

GOLDEN_COUNT = 8


def golden_crops(side: int) -> Crop:
    """Eight crops, uint8 (8, side, side, 3): ramps, a checkerboard, rings, stripes, blobs, two of noise, mid-grey.

    Depends on `side` alone. RandomState's stream is frozen by NumPy's compatibility policy.
    """
    random = np.random.RandomState(20_260_101)
    y, x = np.mgrid[0:side, 0:side] / max(side - 1, 1)
    radius = np.hypot(x - 0.5, y - 0.5)
    pictures = [
        _planes(x, y, 1 - x),
        _planes(*3 * [(np.floor(x * 8) + np.floor(y * 8)) % 2]),
        _planes(np.sin(radius * 40) / 2 + 0.5, radius, 1 - radius),
        _planes(np.floor(x * 12) % 2, 0.2 + 0 * x, np.floor(y * 5) % 2),
        _planes(*(_blobs(random, x, y) for _ in range(3))),
        _planes(*(random.random_sample((side, side)) for _ in range(3))),
        _planes(*3 * [np.repeat(random.random_sample((1, side)), side, axis=0)]),
        _planes(*3 * [np.full((side, side), 0.5)]),
    ]
    return np.stack(pictures)


def _blobs(random: np.random.RandomState, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth field: the sum of five Gaussian bumps, cut at 1."""
    bumps = [np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.02) for cx, cy in random.random_sample((5, 2))]
    field: NDArray[np.float64] = np.clip(np.sum(bumps, axis=0), 0, 1)
    return field


def _planes(red: NDArray[np.float64], green: NDArray[np.float64], blue: NDArray[np.float64]) -> Crop:
    """Three planes in 0…1 to one uint8 (side, side, 3) crop."""
    # Rounding to 1/64 first keeps the bytes equal where libraries differ in the last bit of sin or exp.
    planes = np.stack([red, green, blue], axis=-1)
    return (np.clip(np.round(planes * 64) / 64, 0, 1) * 255).astype(np.uint8)
