"""How a training photo varies: torchvision's v2 transforms on a PIL image, seeded per photo and epoch."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from training.sections import Augmentation, Jitter

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Augment:
    """RGB PIL image → uint8 (size, size, 3). Equal seeds give equal crops, in any process and in any order."""

    def __init__(self, augmentation: Augmentation) -> None:
        self._on_image = v2.Compose(_image_transforms(augmentation))
        self._erasing = v2.RandomErasing(augmentation.erasing) if augmentation.erasing else None

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        """One crop; torch's global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pixels = torch.from_numpy(np.array(self._on_image(image)))
            if self._erasing is not None:
                pixels = self._erasing(pixels.permute(2, 0, 1)).permute(1, 2, 0).contiguous()
        return pixels


def seed_of(*parts: object) -> int:
    """A seed in 0…2^32-1 that depends on every part: run seed, purpose, epoch, photo."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest())


def mixing(augmentation: Augmentation, classes: int) -> Mix | None:
    """MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019) of a batch, or None where the recipe has neither.

    Takes uint8 (batch, height, width, 3) and class indices, gives float images in 0…255 and class probabilities.
    """
    choices = []
    if augmentation.mixup:
        choices.append(v2.MixUp(alpha=augmentation.mixup, num_classes=classes))
    if augmentation.cutmix:
        choices.append(v2.CutMix(alpha=augmentation.cutmix, num_classes=classes))
    if not choices:
        return None
    either = v2.RandomChoice(choices)

    def mix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mixed, targets = either(images.permute(0, 3, 1, 2).float(), labels)
        return mixed.permute(0, 2, 3, 1), targets

    return mix


def _image_transforms(augmentation: Augmentation) -> list[v2.Transform]:
    transforms = _crop(augmentation)
    if augmentation.flip:
        transforms.append(v2.RandomHorizontalFlip(augmentation.flip))
    if augmentation.policy == "randaugment":
        transforms.append(v2.RandAugment())
    elif augmentation.policy == "trivialaugment":
        transforms.append(v2.TrivialAugmentWide())
    if augmentation.jitter != Jitter():
        transforms.append(v2.ColorJitter(**augmentation.jitter.model_dump()))
    if augmentation.rotation:
        transforms.append(v2.RandomRotation(augmentation.rotation, v2.InterpolationMode.BILINEAR))
    return transforms


def _crop(augmentation: Augmentation) -> list[v2.Transform]:
    size = augmentation.size
    if augmentation.crop == "padded":
        return [v2.Resize(size, antialias=True), v2.RandomCrop(size, padding=augmentation.padding)]
    return [v2.RandomResizedCrop(size, scale=augmentation.scale, ratio=augmentation.ratio, antialias=True)]
