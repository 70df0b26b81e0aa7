"""Mean and standard deviation of a run's own training photos, instead of ImageNet's."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from inference.errors import DataInvalid
from training.backbones import LUMA
from training.dataset import Photos
from training.feed import EVALUATION_BATCH
from training.progress import Progress, say
from training.sections import Normalization


def measure(photos: Photos) -> Normalization:
    """Mean and standard deviation per channel, in 0…1, over all pixels of the training split's evaluation crops.

    Raises DataInvalid where a channel never changes: nothing can be divided by its deviation.
    """
    channels, items = photos.recipe.backbone.channels, photos.splits["train"]
    count, total, squares = 0, np.zeros(channels), np.zeros(channels)
    with Progress("mean and deviation", len(items)) as progress:
        for images, _ in photos.crops(items, EVALUATION_BATCH):
            values = _values(images, channels)
            # Sums of whole numbers, exact in float64 up to a million large photos.
            count, total, squares = count + len(values), total + values.sum(0), squares + (values**2).sum(0)
            progress.step(None, len(images))
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    if not deviation.all():
        raise DataInvalid(
            "all training photos have the same value everywhere in some channel, so their standard deviation is 0; "
            "look at the photos, or set normalization.source to constants"
        )
    say(f"training photos: mean {_listed(mean / 255)}, standard deviation {_listed(deviation / 255)} per channel")
    return Normalization(
        source="training",
        mean=tuple(float(value) for value in mean / 255),
        std=tuple(float(value) for value in deviation / 255),
    )


def _values(images: Tensor, channels: int) -> NDArray[np.float64]:
    """What the network's channels are before normalisation, float64 (pixels, channels) in 0…255."""
    pixels = images.numpy().reshape(-1, 3)
    if channels == 1:
        pixels = ((pixels.astype(np.int64) @ np.array(LUMA) + 32_768) >> 16)[:, None]
    return pixels.astype(np.float64)


def _listed(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
