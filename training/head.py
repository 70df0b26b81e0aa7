"""A network's head: more layers in place of its last one, and the dropout before it."""

from collections.abc import Callable

from torch import nn

from training.sections import Head


def replace_head(network: nn.Module, name: str, head: Head) -> None:
    """A stack of layers in place of the last one: for each width a layer, ReLU and dropout, then the classes.

    Layers are of the last one's kind: linear, or 1 × 1 convolutions in a fully convolutional network.
    """
    last = network.get_submodule(name)
    layer: Callable[[int, int], nn.Module]
    if isinstance(last, nn.Conv2d):
        width, classes, layer = last.in_channels, last.out_channels, lambda given, wanted: nn.Conv2d(given, wanted, 1)
    else:
        assert isinstance(last, nn.Linear)
        width, classes, layer = last.in_features, last.out_features, nn.Linear
    layers: list[nn.Module] = []
    for wanted, share in zip(head.widths, head.dropouts, strict=True):
        layers += [layer(width, wanted), nn.ReLU(inplace=True), nn.Dropout(share)]
        width = wanted
    network.set_submodule(name, nn.Sequential(*layers, layer(width, classes)))


def dropouts(network: nn.Module, head: str) -> list[nn.Dropout]:
    """The dropout layers beside the head."""
    parent = network.get_submodule(head.rpartition(".")[0])
    return [layer for layer in parent.children() if isinstance(layer, nn.Dropout)]
