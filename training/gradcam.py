"""Grad-CAM: where in a photo the network looked for an answer (Selvaraju et al. 2017), by the library grad-cam.

The layer looked at is found by what it is: the last one whose answer still has places. In convolutional networks, and
in Swin and MaxViT, that is the last map before pooling. A vision transformer's last block hands on nothing but its
class token, so its patches are taken where that block reads them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock

from inference.errors import RunInvalid
from training.backbones import Normalized
from training.pixels import Pixels

Heat = NDArray[np.float32]
"""float32 (side, side) in 0…1: how much each place speaks for the answer, 1 where it does most."""


@dataclass(frozen=True)
class Target:
    """A layer of the network; with `tokens` it answers (batch, 1 + places, channels), the class token first."""

    name: str
    layer: nn.Module
    tokens: bool


def heat_maps(module: Normalized, crops: list[Pixels], answers: list[int]) -> list[Heat]:
    """What speaks for class `answers[i]` in `crops[i]`, each uint8 (side, side, 3), all of one side.

    Raises RunInvalid for a network without a map.
    """
    # Imported here: it takes seconds, and only a run's last minute needs it.
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    images = torch.from_numpy(np.stack(crops)).to(module.scale.device)
    target = target_of(module, images[:1])
    draw = GradCAM(_ChannelsFirst(module), [target.layer], reshape_transform=_grid if target.tokens else None)
    # The kept weights ask for no gradients: they begin at the pixels.
    pixels = images.permute(0, 3, 1, 2).float().requires_grad_()
    maps: Heat = draw(pixels, [ClassifierOutputTarget(answer) for answer in answers])
    return list(maps)


@torch.no_grad()
def target_of(module: Normalized, image: Tensor) -> Target:
    """The layer to look at, found by running `image`, uint8 (1, side, side, 3). Raises RunInvalid for no such layer."""
    found: list[Target] = []

    def note(name: str, layer: nn.Module, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            found.append(Target(name, layer, tokens=False))

    named = list(module.network.named_modules())
    hooks = [
        layer.register_forward_hook(lambda layer, _, output, name=name: note(name, layer, output))
        for name, layer in named
    ]
    module.eval()(image)
    for hook in hooks:
        hook.remove()
    blocks = [
        Target(f"{name}.ln_1", layer.ln_1, tokens=True) for name, layer in named if isinstance(layer, EncoderBlock)
    ]
    if not blocks + found:
        raise RunInvalid("no layer of the network answers with a map of places; Grad-CAM has nothing to show")
    return (blocks or found)[-1]


class _ChannelsFirst(nn.Module):
    """The module as the library wants it: images float32 (batch, 3, side, side)."""

    def __init__(self, module: Normalized) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(images.permute(0, 2, 3, 1))
        return logits


def _grid(tokens: Tensor) -> Tensor:
    """Patches as a map: (batch, 1 + side², channels) → (batch, channels, side, side)."""
    batch, count, channels = tokens.shape
    side = round((count - 1) ** 0.5)
    return tokens[:, 1:].transpose(1, 2).reshape(batch, channels, side, side)
