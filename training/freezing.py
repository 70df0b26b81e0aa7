"""Which layers a stage trains, and what that means for batch norm and dropout in the others."""

from fnmatch import fnmatchcase

from torch import nn

from training.backbones import Normalized, is_head
from training.sections import Stage


def trained_names(module: Normalized, backbone: str, stage: Stage) -> list[str]:
    """Names of the network's parameters that a stage trains, in the network's order."""
    names = [name for name, _ in module.network.named_parameters()]
    return [
        name
        for name in names
        if any(matches(name, word, backbone) for word in stage.trains)
        and not any(matches(name, word, backbone) for word in stage.freezes)
    ]


def matches(name: str, word: str, backbone: str) -> bool:
    """Whether a parameter is meant by a word of a recipe: `all`, `head`, or a layer's or parameter's name with * ?."""
    if word == "all":
        return True
    if word == "head":
        return is_head(name, backbone)
    return names_layer(name, word)


def names_layer(name: str, word: str) -> bool:
    """Whether a word names a tensor, or a layer that it lies in."""
    return fnmatchcase(name, word) or fnmatchcase(name, f"{word}.*")


def freeze(module: Normalized, names: list[str]) -> None:
    """Let exactly the named parameters of the network train."""
    trained = set(names)
    for name, parameter in module.network.named_parameters():
        parameter.requires_grad_(name in trained)


def training_mode(module: Normalized, frozen_statistics: bool = False) -> None:
    """Training mode for what trains; frozen parts stay in evaluation mode.

    A frozen part's batch norm must not move its running statistics, nor its stochastic depth drop anything.
    """
    module.train()
    for part in module.network.modules():
        parameters = list(part.parameters())
        frozen = bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
        if frozen or (frozen_statistics and isinstance(part, nn.modules.batchnorm._BatchNorm)):
            part.eval()
