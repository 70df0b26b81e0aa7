"""torchvision's classification networks with a head for our classes, inside the module that is exported.

    Normalized                    uint8 (batch, height, width, 3) → float32 (batch, classes)
    └── network                   a torchvision network, or one of ours, built for that many classes

The head is found by what it is, not by a list of names: the layers whose shape follows the number of classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from training.head import dropouts, replace_head
from training.networks import SOURCES
from training.recipe import Recipe
from training.sections import Backbone, Normalization
from training.stem import replace_stem

AUXILIARY_WEIGHTS = {"googlenet": 0.3, "inception_v3": 0.4}
"""What each auxiliary output's loss counts: Szegedy et al. 2014, section 5; torchvision's reference training."""

_BUILT_FOR_A_SIZE = ("vit_", "maxvit_")
LUMA = (19_595, 38_470, 7_471)
"""ITU-R 601-2's 0.299, 0.587 and 0.114 in 65,536ths: what Pillow's `L` reckons with."""
_CLASSES = 10_007
"""A number of classes that is no layer's width."""


class Normalized(nn.Module):
    """A network with its normalisation: uint8 (batch, height, width, 3) in 0…255 → float32 (batch, classes) logits.

    Training, evaluation and export use this one module. Float images in 0…255 are taken too: mixed batches need them.
    A normalisation of one channel turns pixels to luma first, equal to Pillow's `L`, and feeds the network that.
    """

    scale: Tensor
    shift: Tensor
    luma: Tensor

    def __init__(self, network: nn.Module, normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self.is_grey = len(normalization.mean) == 1
        for name in ("scale", "shift"):
            self.register_buffer(name, torch.empty(1, len(normalization.mean), 1, 1))
        self.normalize_by(normalization)
        self.register_buffer("luma", torch.tensor(LUMA).float().view(1, 3, 1, 1), persistent=False)

    def normalize_by(self, normalization: Normalization) -> None:
        """From now on (pixel / 255 - mean) / std, as one product and one sum."""
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (normalization.mean, normalization.std))
        self.scale.copy_(1 / (255 * std))
        self.shift.copy_(mean / std)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 (batch, classes), of the main output."""
        return self.with_auxiliaries(images)[0]

    def with_auxiliaries(self, images: Tensor) -> tuple[Tensor, ...]:
        """Logits, each float32 (batch, classes): the main ones, then in training those of auxiliary outputs.

        Auxiliary outputs that nothing trains through are left out.
        """
        outputs = self.network(self._pixels(images))
        if isinstance(outputs, Tensor):
            return (outputs,)
        main, *auxiliaries = outputs
        return (main, *(logits for logits in auxiliaries if logits is not None and logits.requires_grad))

    def _pixels(self, images: Tensor) -> Tensor:
        """What the network takes, float32 (batch, channels, height, width); channels-last without a copy."""
        pixels = images.permute(0, 3, 1, 2).to(self.scale.dtype)
        if self.is_grey:
            # Whole numbers below 2²⁴: exact in float32, so every runtime rounds alike.
            pixels = torch.floor(((pixels * self.luma).sum(1, keepdim=True) + 32_768) / 65_536)
        return pixels * self.scale - self.shift


@dataclass(frozen=True)
class BackboneFacts:
    """What one knows of a backbone before building it.

    `parameters` are counted for ImageNet's 1,000 classes at the native size, auxiliary outputs included; `native_size`
    is the input side in pixels of its best published weights; `head` names its layers, the main output's last.
    """

    name: str
    parameters: int
    native_size: int
    head: tuple[str, ...]


def backbone_names() -> list[str]:
    """Every network that a recipe can name, sorted: torchvision's for classification, and ours."""
    return sorted([*models.list_models(module=models), *SOURCES])


def backbone_facts(name: str) -> BackboneFacts:
    """The facts of a backbone, counted on a network without memory."""
    count = sum(
        tensor.numel() // _CLASSES * 1000 if _CLASSES in tensor.shape else tensor.numel()
        for tensor in bare_network(name).parameters()
    )
    return BackboneFacts(name, count, native_size(name), head_layers(name))


def published_weights(name: str) -> Any:
    """The enumeration of torchvision's weights that can fill a backbone."""
    return models.get_model_weights(SOURCES.get(name, name))


def native_size(name: str) -> int:
    """The input side in pixels of a backbone's best published weights."""
    return int(published_weights(name).DEFAULT.transforms().crop_size[0])


def layer_names(network: nn.Module) -> list[str]:
    """The outer layers of a network, in order: what a recipe can name, beside all that lie inside."""
    return [
        key
        for key, layer in network.named_modules()
        if key.count(".") < 2 and key and any(True for _ in layer.parameters())
    ]


@lru_cache
def head_layers(name: str) -> tuple[str, ...]:
    """Names of the layers whose parameters' shapes follow the number of classes: ("classifier.1",) for MobileNetV2.

    The main output's comes last, after those of auxiliary outputs.
    """
    keys = [key for key, tensor in bare_network(name).named_parameters() if _CLASSES in tensor.shape]
    return tuple(dict.fromkeys(key.rpartition(".")[0] for key in keys))


def is_head(name: str, backbone: str) -> bool:
    """Whether a parameter of the network belongs to its head, a recipe's own included."""
    return any(name.startswith(f"{layer}.") for layer in head_layers(backbone))


def is_built_for_a_size(name: str) -> bool:
    """Whether the input size is fixed when the network is built: it then is the recipe's crop."""
    return name.startswith(_BUILT_FOR_A_SIZE)


def build(recipe: Recipe, classes: int) -> Normalized:
    """The recipe's network with random weights (torch's global generator), in the recipe's memory format."""
    network = _network(recipe.backbone, recipe.preprocessing.crop, classes)
    for layer in network.modules():
        # In place, these first copy their input for the gradient, which costs more than a new output.
        if isinstance(layer, nn.Hardtanh | nn.Hardswish | nn.SiLU):
            layer.inplace = False
    module = Normalized(network, recipe.normalization.over(recipe.backbone.channels))
    return module.to(memory_format=torch.channels_last) if recipe.channels_last else module


def lay_out(recipe: Recipe, classes: int = 2) -> Normalized:
    """The recipe's network on the meta device: names and shapes without memory.

    Raises ValueError, RuntimeError or AssertionError, as the network does that cannot be built so.
    """
    with _WithoutMemory():
        network = _network(recipe.backbone, recipe.preprocessing.crop, classes)
    return Normalized(network, recipe.normalization.over(recipe.backbone.channels)).to("meta")


class _WithoutMemory(TorchFunctionMode):
    """Parameters on the meta device; what networks reckon with small tensors while they are built stays real."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        return func(*args, **(options | {"device": "meta"} if func is torch.empty else options))


def _network(backbone: Backbone, side: int, classes: int) -> nn.Module:
    options = _options(backbone.name, side, backbone.channels)
    network: nn.Module = models.get_model(backbone.name, weights=None, num_classes=classes, **options)
    replace_stem(network, backbone.channels, backbone.stem)
    main = head_layers(backbone.name)[-1]
    if backbone.head is not None:
        replace_head(network, main, backbone.head)
    if backbone.dropout is not None:
        for layer in dropouts(network, main):
            layer.p = backbone.dropout
    return network


@lru_cache(maxsize=4)
def bare_network(name: str) -> nn.Module:
    """A backbone as its authors made it, for _CLASSES classes, without memory."""
    options = _options(name, native_size(name), channels=3)
    with _WithoutMemory():
        network: nn.Module = models.get_model(name, weights=None, num_classes=_CLASSES, **options)
    return network


def _options(name: str, side: int, channels: int) -> dict[str, Any]:
    if name in AUXILIARY_WEIGHTS:
        # Their weights were trained on another normalisation than ImageNet's and turn one into the other themselves.
        return {"aux_logits": True, "transform_input": channels == 3, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": side}
    return {"input_size": (side, side)} if name.startswith("maxvit_") else {}
