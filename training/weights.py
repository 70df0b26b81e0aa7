"""Pretrained weights into a network, with a word on every key that could not be filled. Nothing is unpickled."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision import models

from inference.errors import RunInvalid
from inference.manifest import Digest, file_entry
from training.backbones import Normalized
from training.recipe import Recipe


@dataclass(frozen=True)
class Filled:
    """Where a network's first weights came from, and which of its keys they did not fill."""

    source: str
    sha256: Digest | None
    filled: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong_shape: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"weights {self.source}: {self.filled} tensors loaded"]
        for what, keys in (
            ("not in the weights, left random", self.missing),
            ("of another shape, left random", self.wrong_shape),
            ("in the weights but not in the network, ignored", self.unexpected),
        ):
            if keys:
                lines.append(f"  {what}: {', '.join(keys)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Weights:
    """Weights that were read and await a network; `state` is None where the recipe wants none."""

    state: Mapping[str, Tensor] | None
    source: str
    sha256: Digest | None


def read_weights(recipe: Recipe, file: Path | None) -> Weights:
    """Weights from a file, or else those that the recipe names. Raises RunInvalid: not to be read or downloaded."""
    if file is not None:
        return Weights(_from_file(file), file.name, file_entry(file).sha256)
    if recipe.backbone.weights == "none":
        return Weights(None, "none", None)
    return _by_name(recipe)


def fill(module: Normalized, weights: Weights) -> Filled:
    """Load weights into the module's network. Raises RunInvalid where they fit no tensor of it."""
    state, source = weights.state, weights.source
    if state is None:
        return Filled(source, None, 0)
    own = module.network.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise RunInvalid(
            f"none of the {len(state)} tensors in {source} fits the network; choose its own backbone's weights"
        )
    module.network.load_state_dict(fitting, strict=False)
    return Filled(
        source,
        weights.sha256,
        filled=len(fitting),
        missing=tuple(key for key in own if key not in state),
        unexpected=tuple(key for key in state if key not in own),
        wrong_shape=tuple(
            f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
            for key in own
            if key in state and key not in fitting
        ),
    )


def _from_file(file: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunInvalid(f"the weights {file} do not exist; check the path") from None
    except Exception as error:  # torch's reader raises KeyError, UnpicklingError, RuntimeError, … on other files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunInvalid(
            f"{file} holds no weights that can be read safely ({reason}); save a state dict with torch.save"
        ) from error
    for key in ("state_dict", "model"):  # as common training scripts wrap them
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise RunInvalid(f"{file} is not a state dict (names to tensors); save `model.state_dict()` and pass that file")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _by_name(recipe: Recipe) -> Weights:
    name, wanted = recipe.backbone.name, recipe.backbone.weights
    choices = models.get_model_weights(name)
    weights = choices.DEFAULT if wanted == "imagenet" else choices[wanted]
    try:
        state = models.get_model(name, weights=weights, progress=False).state_dict()
    except (URLError, OSError) as error:
        raise RunInvalid(
            f"torchvision's {weights} could not be downloaded ({error}); pass a state dict with --weights FILE, "
            "or set backbone.weights to none"
        ) from error
    cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    return Weights(state, str(weights), file_entry(cached).sha256 if cached.is_file() else None)
