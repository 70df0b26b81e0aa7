"""A network's stem, its first convolution and first pooling: replaced, and filled from pretrained kernels."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.sections import Stem


def first_convolution(network: nn.Module) -> str:
    """The name of the convolution that sees the pixels: the first that is registered."""
    return str(next(name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)))


def first_pooling(network: nn.Module) -> str | None:
    """The name of the first max pooling; None for a network without."""
    return next((name for name, layer in network.named_modules() if isinstance(layer, nn.MaxPool2d)), None)


def replace_stem(network: nn.Module, channels: int, stem: Stem | None) -> None:
    """Let the network take so many channels, and give it the recipe's stem. Untouched where it has both already."""
    name = first_convolution(network)
    old = network.get_submodule(name)
    assert isinstance(old, nn.Conv2d)
    if stem is not None or old.in_channels != channels:
        network.set_submodule(name, _convolution(old, channels, stem))
    pooling = first_pooling(network)
    if stem is not None and stem.pool != "keep" and pooling is not None:
        new = nn.Identity() if stem.pool == "none" else nn.MaxPool2d(stem.pool.kernel, stem.pool.stride)
        network.set_submodule(pooling, new)


def fitted_kernels(kernels: Tensor, shape: torch.Size, fill: Literal["sum", "mean"]) -> Tensor:
    """Pretrained kernels (out, in, height, width) as near to another shape as they can be brought.

    Three channels become one by their sum or mean; the square is cut around its centre, or zeros are put around it.
    """
    if (kernels.shape[1], shape[1]) == (3, 1):
        kernels = kernels.sum(1, keepdim=True) if fill == "sum" else kernels.mean(1, keepdim=True)
    margins = []
    for wanted, found in zip(reversed(shape[2:]), reversed(kernels.shape[2:]), strict=True):
        before = (wanted - found) // 2
        margins += [before, wanted - found - before]
    return functional.pad(kernels, margins)  # negative margins cut


def _convolution(old: nn.Conv2d, channels: int, stem: Stem | None) -> nn.Conv2d:
    """A convolution with as many outputs as the old one, random after He et al. 2015."""
    bias = stem.bias if stem is not None and stem.bias is not None else old.bias is not None
    new = nn.Conv2d(
        channels,
        old.out_channels,
        stem.kernel if stem else old.kernel_size,  # type: ignore[arg-type]  # two numbers, as torch says itself
        stem.stride if stem else old.stride,  # type: ignore[arg-type]
        stem.padding if stem else old.padding,  # type: ignore[arg-type]
        bias=bias,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new
