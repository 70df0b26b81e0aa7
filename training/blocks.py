"""A network as a row of blocks from its input to its head: what learning rates decay along and `last 3` counts."""

from collections.abc import Iterator

from torch import nn
from torchvision.models.maxvit import MaxVitBlock
from torchvision.models.regnet import AnyStage
from torchvision.models.vision_transformer import Encoder

from training.backbones import head_layers, is_head

_ROWS = (nn.Sequential, nn.ModuleList, AnyStage, Encoder, MaxVitBlock)
"""Layers that only hold others, one after the other; their subclasses are blocks."""


def depths(network: nn.Module, backbone: str) -> dict[str, int]:
    """How many blocks from the output each parameter of a network lies: 0 for the head's, 1 for those before it.

    A block is a residual block, a transformer layer, a convolution …; a norm that stands alone belongs to the block
    before it, what belongs to none (position embeddings) to the first, and an auxiliary output to the head.
    """
    vectors = {name: parameter.ndim < 2 for name, parameter in network.named_parameters()}
    found = {name: 0 for name in vectors if is_head(name, backbone)}
    blocks: list[list[str]] = []
    for path in _paths(network):
        inside = [name for name in vectors if name.startswith(f"{path}.") and name not in found]
        if any(layer.startswith(f"{path}.") for layer in head_layers(backbone)):
            found |= dict.fromkeys(inside, 0)
        elif blocks and all(vectors[name] for name in inside):
            blocks[-1] += inside
        else:
            blocks.append(inside)
    for index, inside in enumerate(blocks):
        found |= dict.fromkeys(inside, len(blocks) - index)
    return {name: found.get(name, len(blocks)) for name in vectors}


def _paths(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of the blocks, in order."""
    for name, child in module.named_children():
        if type(child) in _ROWS:
            yield from _paths(child, f"{prefix}{name}.")
        elif any(True for _ in child.parameters()):
            yield f"{prefix}{name}"
