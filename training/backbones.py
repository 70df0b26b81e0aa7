"""torchvision's classification networks with a head for our classes, inside the module that is exported.

    Normalized                    uint8 (batch, height, width, 3) → float32 (batch, classes)
    └── network                   a torchvision network built for that many classes

The head is found by what it is, not by a list of names: the layers whose shape follows the number of classes.
"""

import difflib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

import torch
from torch import Tensor, nn
from torchvision import models

from training.recipe import Recipe
from training.sections import Normalization, Stage

# Their training outputs are tuples, their input size is fixed when they are built, or they cannot be laid out
# without memory.
_NOT_YET = ("googlenet", "inception", "vit_", "maxvit", "regnet")
_PROBES = (10_007, 10_009)
"""Two numbers of classes that are no layer's width."""


class Normalized(nn.Module):
    """A network with its normalisation: uint8 (batch, height, width, 3) in 0…255 → float32 (batch, classes) logits.

    Training, evaluation and export use this one module. Float images in 0…255 are taken too: mixed batches need them.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        mean, std = torch.tensor(normalization.mean), torch.tensor(normalization.std)
        # (pixel / 255 - mean) / std as one product and one sum.
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1))
        self.register_buffer("shift", (mean / std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 (batch, classes); the permuted view is channels-last without a copy."""
        pixels = images.permute(0, 3, 1, 2).to(self.scale.dtype)
        logits: Tensor = self.network(pixels * self.scale - self.shift)
        return logits


@dataclass(frozen=True)
class BackboneFacts:
    """What one knows of a backbone before building it; parameters are counted for ImageNet's 1,000 classes."""

    name: str
    parameters: int
    native_size: int | None
    head: tuple[str, ...]


def backbone_names() -> list[str]:
    """Every torchvision classification network that a recipe can name, sorted."""
    return [name for name in models.list_models(module=models) if not name.startswith(_NOT_YET)]


def backbone_facts(name: str) -> BackboneFacts:
    """Parameter count, the input side in pixels of its best published weights, and the head's layers."""
    size = _native_size(name)
    count = sum(parameter.numel() for parameter in _on_meta(name, 1000).parameters())
    return BackboneFacts(name, count, size, head_layers(name))


def layer_names(name: str) -> list[str]:
    """The outer layers of a backbone, in order: what `trains` and `freezes` can name, beside all that lie inside."""
    network = _on_meta(name, 2)
    return [
        key
        for key, layer in network.named_modules()
        if key.count(".") < 2 and key and any(True for _ in layer.parameters())
    ]


@lru_cache
def head_layers(name: str) -> tuple[str, ...]:
    """Names of the layers whose parameters' shapes follow the number of classes: ("classifier.1",) for MobileNetV2."""
    first, second = (dict(_on_meta(name, classes).named_parameters()) for classes in _PROBES)
    found = {key.rpartition(".")[0]: None for key in first if first[key].shape != second[key].shape}
    return tuple(found)


def build(recipe: Recipe, classes: int) -> Normalized:
    """The recipe's network with random weights (torch's global generator), in the recipe's memory format."""
    network = models.get_model(recipe.backbone.name, weights=None, num_classes=classes)
    _set_dropout(network, recipe.backbone.name, recipe.backbone.dropout)
    module = Normalized(network, recipe.normalization)
    return module.to(memory_format=torch.channels_last) if recipe.channels_last else module


def trained_names(module: Normalized, backbone: str, stage: Stage) -> list[str]:
    """Names of the network's parameters that a stage trains, in the network's order."""
    names = [name for name, _ in module.network.named_parameters()]
    return [
        name
        for name in names
        if any(_matches(name, word, backbone) for word in stage.trains)
        and not any(_matches(name, word, backbone) for word in stage.freezes)
    ]


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


def is_head(name: str, backbone: str) -> bool:
    """Whether a parameter of the network belongs to its head."""
    return name.rpartition(".")[0] in head_layers(backbone)


def check_network(recipe: Recipe) -> list[str]:
    """What is wrong between a recipe and its backbone, found without weights; empty when all is well."""
    name = recipe.backbone.name
    if name not in backbone_names():
        near = difflib.get_close_matches(name, backbone_names(), n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(backbone_names())}"
        return [f"backbone.name: no backbone is called {name!r}; {hint}"]
    problems = []
    known = [weights.name for weights in models.get_model_weights(name)]
    if recipe.backbone.weights not in ("none", "imagenet", *known):
        problems.append(f"backbone.weights: {name} has none, imagenet, {', '.join(known)}; choose one of these")
    with torch.device("meta"):
        network = models.get_model(name, weights=None, num_classes=2)
        module = Normalized(network, recipe.normalization)
    if recipe.backbone.dropout is not None and not _dropouts(network, name):
        problems.append(f"backbone.dropout: {name} has no dropout before its head; leave the key out")
    for index, stage in enumerate(recipe.stages):
        problems += [f"stages.{index}.{problem}" for problem in _stage_problems(module, name, stage)]
    for key, side in (
        ("preprocessing.crop", recipe.preprocessing.crop),
        ("augmentation.size", recipe.augmentation.size),
    ):
        try:
            module.eval()(torch.empty(2, side, side, 3, dtype=torch.uint8, device="meta"))
        except (RuntimeError, AssertionError, ValueError) as error:
            problems.append(f"{key}: {name} cannot take {side} pixels ({str(error).splitlines()[0]}); choose more")
    return problems


def _stage_problems(module: Normalized, backbone: str, stage: Stage) -> list[str]:
    names = [name for name, _ in module.network.named_parameters()]
    problems = [
        f"{key}: {word!r} matches no layer of {backbone}; it has {', '.join(layer_names(backbone))} and those inside"
        for key, words in (("trains", stage.trains), ("freezes", stage.freezes))
        for word in words
        if not any(_matches(name, word, backbone) for name in names)
    ]
    if not problems and not trained_names(module, backbone, stage):
        problems.append("trains: `freezes` takes away all that `trains` names; nothing would be trained")
    return problems


def _matches(name: str, word: str, backbone: str) -> bool:
    if word == "all":
        return True
    if word == "head":
        return is_head(name, backbone)
    return fnmatchcase(name, word) or fnmatchcase(name, f"{word}.*")


def _on_meta(name: str, classes: int) -> nn.Module:
    with torch.device("meta"):
        network: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return network


def _native_size(name: str) -> int | None:
    weights = models.get_model_weights(name)
    return weights.DEFAULT.transforms().crop_size[0] if len(weights) else None


def _dropouts(network: nn.Module, backbone: str) -> list[nn.Dropout]:
    """The dropout layers beside the head."""
    parent = network.get_submodule(head_layers(backbone)[-1].rpartition(".")[0])
    return [layer for layer in parent.children() if isinstance(layer, nn.Dropout)]


def _set_dropout(network: nn.Module, backbone: str, share: float | None) -> None:
    if share is not None:
        for layer in _dropouts(network, backbone):
            layer.p = share
