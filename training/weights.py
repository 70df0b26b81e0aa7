"""Pretrained weights into a network, with a word on every key that could not be filled. Nothing is unpickled."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from inference.errors import RunInvalid
from inference.manifest import Digest, file_entry
from training.backbones import AUXILIARY_WEIGHTS, Normalized, bare_network, head_layers, lay_out, published_weights
from training.freezing import names_layer
from training.networks import SOURCES
from training.recipe import Recipe
from training.sections import Backbone
from training.stem import first_convolution, fitted_kernels

_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)")
"""`denselayer1.norm.1.`: torchvision's published DenseNets name their layers as older PyTorch did."""


@dataclass(frozen=True)
class Filled:
    """Where a network's first weights came from, and what of it they did not fill.

    `missing` and `unexpected` name the outermost layers that are on one side only, the others name tensors.
    """

    source: str
    sha256: Digest | None
    filled: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong_shape: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"weights {self.source}: {self.filled} tensors loaded"]
        for what, keys in (
            ("not in the weights, left random", self.missing),
            ("of another shape, left random", self.wrong_shape),
            ("left random as the recipe asks", self.fresh),
            ("in the weights but not in the network, ignored", self.unexpected),
        ):
            if keys:
                lines.append(f"  {what}: {', '.join(keys)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Weights:
    """Weights that were read and await a network; `state` is None where the recipe wants none."""

    backbone: Backbone
    state: Mapping[str, Tensor] | None
    source: str
    sha256: Digest | None


def read_weights(recipe: Recipe, file: Path | None) -> Weights:
    """Weights from a file, or else those that the recipe names.

    Raises RunInvalid: not to be read or downloaded, or another backbone's.
    """
    if file is not None:
        weights = Weights(recipe.backbone, _from_file(file), file.name, file_entry(file).sha256)
        _match(lay_out(recipe).network, weights)
        return weights
    if recipe.backbone.weights == "none":
        return Weights(recipe.backbone, None, "none", None)
    return _by_name(recipe.backbone)


def fill(module: Normalized, weights: Weights) -> Filled:
    """Load weights into the module's network. Raises RunInvalid where they are another backbone's."""
    fitting, filled = _match(module.network, weights)
    module.network.load_state_dict(fitting, strict=False)
    return filled


def _match(network: nn.Module, weights: Weights) -> tuple[Mapping[str, Tensor], Filled]:
    """The tensors that fill the network, and what is to be said of them. Raises RunInvalid.

    What the recipe replaces may be missing or of another shape, and nothing else: the head, and the first
    convolution, whose kernels are brought to its shape where they can be.
    """
    backbone, source = weights.backbone, weights.source
    if weights.state is None:
        return {}, Filled(source, None, 0)
    own = network.state_dict()
    fresh = tuple(key for key in own if any(names_layer(key, word) for word in backbone.fresh))
    state = _fitted(network, weights.state, backbone)
    common = [key for key in own if key in state and key not in fresh]
    fitting = {key: state[key] for key in common if own[key].shape == state[key].shape}
    if not fitting:
        raise RunInvalid(
            f"none of the {len(state)} tensors in {source} fits the network; choose its own backbone's weights"
        )
    missing = [key for key in own if key not in state and key not in fresh]
    shapes = {
        key: f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}" for key in common if key not in fitting
    }
    foreign = [shapes[key] for key in _kept(shapes, network, backbone.name)]
    if foreign:
        raise RunInvalid(
            f"{source} belongs to another backbone than {backbone.name}: {len(foreign)} tensors have other shapes, "
            f"{foreign[0]} first; choose its own weights, or name layers that shall stay random in backbone.fresh"
        )
    lacking = _outermost(_kept(missing, network, backbone.name), state)
    if lacking:
        raise RunInvalid(
            f"{source} does not fill {backbone.name}: it lacks {', '.join(lacking)}; choose its own weights, "
            "or name layers that shall stay random in backbone.fresh"
        )
    return fitting, Filled(
        source,
        weights.sha256,
        filled=len(fitting),
        missing=_outermost(missing, state),
        unexpected=_outermost([key for key in state if key not in own], own),
        wrong_shape=tuple(shapes.values()),
        fresh=fresh,
    )


def _kept(keys: Iterable[str], network: nn.Module, name: str) -> list[str]:
    """Those of the network's tensors that the backbone's own weights fill: not head, first convolution or what is new.

    Auxiliary outputs are filled where the weights have them, and batch norm's counters are of no weight.
    """
    published = bare_network(SOURCES.get(name, name)).state_dict()
    *auxiliary, _ = head_layers(name)
    replaced = (first_convolution(network), *head_layers(name), *(layer.partition(".")[0] for layer in auxiliary))
    return [
        key
        for key in keys
        if key in published
        and not key.endswith(".num_batches_tracked")
        and not any(names_layer(key, layer) for layer in replaced)
    ]


def _outermost(keys: Sequence[str], others: Iterable[str]) -> tuple[str, ...]:
    """The keys, shortened to the outermost layers in which none of the others lies."""
    inhabited = {name for key in others for name in _around(key)}
    return tuple(dict.fromkeys(next((n for n in _around(key) if n not in inhabited), key) for key in keys))


def _around(key: str) -> Iterator[str]:
    """The layers that a tensor lies in, the outermost first, and the tensor itself."""
    return accumulate(key.split("."), "{}.{}".format)


def _fitted(network: nn.Module, state: Mapping[str, Tensor], backbone: Backbone) -> Mapping[str, Tensor]:
    """The weights with first kernels and position embeddings brought to the network's shapes, where they can be."""
    fitted = dict(state)
    kernels = f"{first_convolution(network)}.weight"
    if kernels in fitted and fitted[kernels].ndim == 4:
        fitted[kernels] = fitted_kernels(fitted[kernels], network.get_parameter(kernels).shape, backbone.fill)
    if isinstance(network, VisionTransformer) and "encoder.pos_embedding" in fitted:
        with suppress(ValueError):  # not of a square picture: of another shape then, and said so
            interpolate_embeddings(network.image_size, network.patch_size, fitted)
    return fitted


def _from_file(file: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunInvalid(f"the weights {file} do not exist; check the path") from None
    except Exception as error:  # torch's reader raises KeyError, UnpicklingError, RuntimeError, … on other files
        # Its advice, to unpickle whatever the file holds, is none of ours.
        reason = error.strerror if isinstance(error, OSError) else "damaged, or more than tensors"
        raise RunInvalid(
            f"{file} holds no weights that can be read safely ({reason}); save a state dict with torch.save"
        ) from error
    if isinstance(content, dict) and "identity" in content:
        raise RunInvalid(
            f"{file} is the checkpoint of a run; go on with that run by --resume {file.parent}, "
            "or give weights to start from, as torchvision publishes them"
        )
    for key in ("state_dict", "model"):  # as common training scripts wrap them
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise RunInvalid(f"{file} is not a state dict (names to tensors); save `model.state_dict()` and pass that file")
    return {_DENSENET.sub(r"\1\2", key.removeprefix("module.")): value for key, value in content.items()}


def _by_name(backbone: Backbone) -> Weights:
    name, choices = SOURCES.get(backbone.name, backbone.name), published_weights(backbone.name)
    weights = choices.DEFAULT if backbone.weights == "imagenet" else choices[backbone.weights]
    options = {"aux_logits": True} if name in AUXILIARY_WEIGHTS else {}
    try:
        with warnings.catch_warnings():
            # GoogLeNet's says that its auxiliary outputs are untrained; a recipe says what it trains.
            warnings.simplefilter("ignore", UserWarning)
            state = models.get_model(name, weights=weights, progress=False, **options).state_dict()
    except (URLError, OSError) as error:
        raise RunInvalid(
            f"torchvision's {weights} could not be downloaded ({error}); pass a state dict with --weights FILE, "
            "or train from random ones: --strategy scratch, or backbone.weights none in a recipe"
        ) from error
    cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    return Weights(backbone, state, str(weights), file_entry(cached).sha256 if cached.is_file() else None)
