"""What is wrong between a recipe and its network, found without weights or photos."""

import difflib

import torch
from torch import nn

from training.backbones import (
    Normalized,
    backbone_names,
    bare_network,
    head_layers,
    is_built_for_a_size,
    lay_out,
    layer_names,
    native_size,
    published_weights,
)
from training.blocks import depths
from training.freezing import meant, names_layer, trained_names
from training.head import dropouts
from training.recipe import Recipe
from training.sections import Section, Stage
from training.stem import first_pooling

_REFUSALS = (RuntimeError, AssertionError, ValueError)


def check_network(recipe: Recipe) -> list[str]:
    """Every problem as `key: what is wrong; what to do`; empty when all is well."""
    name = recipe.backbone.name
    if name not in backbone_names():
        near = difflib.get_close_matches(name, backbone_names(), n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(backbone_names())}"
        return [f"backbone.name: no backbone is called {name!r}; {hint}"]
    try:
        module = lay_out(recipe)
    except _REFUSALS as error:
        return [
            f"preprocessing.crop: {name} cannot be built for {recipe.preprocessing.crop} pixels "
            f"({_first_line(error)}); its native size is {native_size(name)}"
        ]
    problems = _backbone_problems(recipe, module.network)
    for index, stage in enumerate(recipe.stages):
        problems += [f"stages.{index}.{problem}" for problem in _stage_problems(module, name, stage)]
    return problems + _size_problems(recipe, module)


def idle_keys(recipe: Recipe) -> list[str]:
    """Keys that a recipe sets and that change nothing in any of its stages."""
    solved = [stage.solver.kind != "gradient" for stage in recipe.stages]
    keys: list[str] = []
    if all(stage.cached_features for stage in recipe.stages):
        keys += [f"augmentation.{key}" for key in _set_keys(recipe.augmentation) if key not in ("size", "shrink_to")]
        keys += [f"backbone.{key}" for key in _set_keys(recipe.backbone) if key == "dropout"]
    if all(solved):
        steps = ("label_smoothing", "average", "accumulate", "clip_norm")
        keys += [key for key in _set_keys(recipe) if key in steps]
    for index, stage in enumerate(recipe.stages):
        idle = ["optimizer", "schedule"] * solved[index] + ["frozen_statistics"] * stage.cached_features
        keys += [f"stages.{index}.{key}" for key in _set_keys(stage) if key in idle]
    return keys


def _set_keys(section: Section) -> list[str]:
    return [key for key, field in type(section).model_fields.items() if getattr(section, key) != field.default]


def _backbone_problems(recipe: Recipe, network: nn.Module) -> list[str]:
    backbone = recipe.backbone
    name, problems = backbone.name, []
    known = [weights.name for weights in published_weights(name)]
    if backbone.weights not in ("none", "imagenet", *known):
        problems.append(f"backbone.weights: {name} has none, imagenet, {', '.join(known)}; choose one of these")
    if backbone.dropout is not None and not dropouts(network, head_layers(name)[-1]):
        problems.append(f"backbone.dropout: {name} has no dropout before its head; leave the key out")
    if backbone.stem is not None:
        if is_built_for_a_size(name):
            problems.append(f"backbone.stem: {name} is built around its first convolution; leave the key out")
        elif backbone.stem.pool != "keep" and first_pooling(bare_network(name)) is None:
            problems.append(f"backbone.stem.pool: {name} has no max pooling; leave the key out")
    problems += [
        f"backbone.fresh: {_unknown(word, name, network)}"
        for word in backbone.fresh
        if not any(names_layer(key, word) for key in network.state_dict())
    ]
    return problems


def _stage_problems(module: Normalized, backbone: str, stage: Stage) -> list[str]:
    problems = [
        f"{key}: {_unknown(word, backbone, module.network)}"
        for key, words in (("trains", stage.trains), ("freezes", stage.freezes))
        for word in words
        if not meant(module.network, word, backbone)
    ]
    if not problems and not trained_names(module, backbone, stage):
        problems.append("trains: `freezes` takes away all that `trains` names; nothing would be trained")
    return problems


def _size_problems(recipe: Recipe, module: Normalized) -> list[str]:
    """Sizes that the network cannot take, tried on it: training crops in training mode, for auxiliary outputs."""
    name, crop, size = recipe.backbone.name, recipe.preprocessing.crop, recipe.augmentation.size
    if is_built_for_a_size(name) and size != crop:
        return [f"augmentation.size: {name} is built for one size; make it equal to preprocessing.crop, {crop}"]
    problems = []
    for key, side, training in (("preprocessing.crop", crop, False), ("augmentation.size", size, True)):
        try:
            module.train(training)(torch.empty(2, side, side, 3, dtype=torch.uint8, device="meta"))
        except _REFUSALS as error:
            problems.append(
                f"{key}: {name} cannot take {side} pixels ({_first_line(error)}); choose more, or its native size, "
                f"{native_size(name)}"
            )
    return problems


def _unknown(word: str, backbone: str, network: nn.Module) -> str:
    if word.startswith("last "):
        count = 1 + max(depths(network, backbone).values())
        return f"{backbone} has {count} blocks, its head among them; choose `last 1` to `last {count}`, not {word!r}"
    return f"{word!r} matches no layer of {backbone}; it has {', '.join(layer_names(network))} and those inside"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
