"""Which layers a stage trains, and what that means for batch norm and dropout in the others."""

import re
from fnmatch import fnmatchcase

from torch import nn

from training.backbones import Normalized, head_layers, is_head
from training.blocks import depths
from training.recipe import Recipe
from training.sections import Stage

_LAST = re.compile(r"last ([1-9]\d{0,3})")


def trained_names(module: Normalized, backbone: str, stage: Stage) -> list[str]:
    """Names of the network's parameters that a stage trains, in the network's order."""
    network = module.network
    chosen, taken = (
        {name for word in words for name in meant(network, word, backbone)} for words in (stage.trains, stage.freezes)
    )
    # Cached features are those of the main output.
    inside = f"{head_layers(backbone)[-1]}." if stage.cached_features else ""
    return [name for name, _ in network.named_parameters() if name in chosen - taken and name.startswith(inside)]


def meant(network: nn.Module, word: str, backbone: str) -> list[str]:
    """The parameters that a word of a recipe means.

    It is `all`, `head`, `last N` for the last N blocks, or a layer's or parameter's name with * ? [0-9]. The list is
    empty where nothing of that name is there, or where there are not so many blocks.
    """
    names = [name for name, _ in network.named_parameters()]
    last = _LAST.fullmatch(word)
    if last:
        depth = depths(network, backbone)
        count = int(last[1]) if int(last[1]) <= 1 + max(depth.values()) else 0
        return [name for name in names if depth[name] < count]
    if word == "all":
        return names
    return [name for name in names if (is_head(name, backbone) if word == "head" else names_layer(name, word))]


def never_trained(module: Normalized, recipe: Recipe) -> list[str]:
    """Names of the network's parameters that stay in every stage as they began."""
    stages = [set(trained_names(module, recipe.backbone.name, stage)) for stage in recipe.stages]
    return [name for name, _ in module.network.named_parameters() if not any(name in names for names in stages)]


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
