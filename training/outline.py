"""What a recipe would do, before it does it: layers, what trains, parameters, memory and time.

Memory and time come from a few real steps on noise, on the machine at hand: a table of other machines would be wrong.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.backbones import Normalized, build, layer_names
from training.compute import Compute
from training.feed import EVALUATION_BATCH, head_of
from training.freezing import freeze, trained_names, training_mode
from training.optimize import make_optimizer, parameter_groups, peaks
from training.recipe import Recipe
from training.sections import Stage

_PROBE_BATCH = 8  # photos per measured step, at most: a whole batch of a large network takes minutes on a CPU
_PROBE_STEPS = 2
_STATES = {"sgd": 1, "adam": 2, "adamw": 2}
"""Numbers that an optimizer keeps for each trained one."""


@dataclass(frozen=True)
class Layer:
    """An outer layer of the network: its parameters, and the stages that train some of them."""

    name: str
    kind: str
    parameters: int
    trained_in: tuple[str, ...]


@dataclass(frozen=True)
class StagePlan:
    """One stage: how many parameters train and how fast, bytes of memory at its peak, seconds for all its epochs."""

    name: str
    epochs: int
    parameters: int
    rates: str
    memory: int
    seconds: float


@dataclass(frozen=True)
class Outline:
    """The whole plan. `photos` counts the files of each split; damaged ones are only found when training begins."""

    photos: dict[str, int]
    classes: tuple[str, ...]
    parameters: int
    layers: tuple[Layer, ...]
    stages: tuple[StagePlan, ...]
    compute: str


def outline(recipe: Recipe, photos: dict[str, int], classes: tuple[str, ...], compute: Compute) -> Outline:
    """Build the recipe's network and try a few steps of every stage with it; nothing is written."""
    module = build(recipe, len(classes)).to(compute.device)
    sizes = {name: parameter.numel() for name, parameter in module.network.named_parameters()}
    trained = {stage.name: set(trained_names(module, recipe.backbone.name, stage)) for stage in recipe.stages}
    layers = [
        _layer(module, name, [key for key in sizes if key.startswith(f"{name}.")], trained)
        for name in _innermost(layer_names(module.network))
    ]
    return Outline(
        photos=photos,
        classes=classes,
        parameters=sum(sizes.values()),
        layers=tuple(layers),
        stages=tuple(_plan(recipe, stage, module, photos, compute) for stage in recipe.stages),
        compute=str(compute),
    )


def _innermost(names: list[str]) -> list[str]:
    return [name for name in names if not any(other.startswith(f"{name}.") for other in names)]


def _layer(module: Normalized, name: str, inside: list[str], trained: dict[str, set[str]]) -> Layer:
    stages = tuple(stage for stage, names in trained.items() if not names.isdisjoint(inside))
    count = sum(module.network.get_parameter(key).numel() for key in inside)
    return Layer(name, type(module.network.get_submodule(name)).__name__, count, stages)


def _plan(recipe: Recipe, stage: Stage, module: Normalized, photos: dict[str, int], compute: Compute) -> StagePlan:
    names = trained_names(module, recipe.backbone.name, stage)
    parameters = dict(module.network.named_parameters())
    trained, total = (sum(parameters[name].numel() for name in part) for part in (names, parameters))
    weights = 4 * total * (2 if recipe.average else 1) + 4 * trained * (1 + _STATES[stage.optimizer.kind])
    seen = photos["train"] + photos.get("validation", 0)
    freeze(module, names)
    rates = peaks(parameter_groups(module, recipe.backbone.name, stage)) if stage.rates else ""
    forward, evaluated, features = _forward(recipe, module, compute)
    if stage.cached_features:
        # A solver scales a copy in float64.
        kept = features * seen * (1 if stage.solver.kind == "gradient" else 3)
        return StagePlan(stage.name, stage.epochs, trained, rates, weights + evaluated + kept, forward * seen)
    step, saved = _steps(recipe, stage, module, compute)
    per_epoch = step * photos["train"] + forward * photos.get("validation", 0)
    memory = weights + max(saved, evaluated)
    return StagePlan(stage.name, stage.epochs, trained, rates, memory, stage.epochs * per_epoch)


def _forward(recipe: Recipe, module: Normalized, compute: Compute) -> tuple[float, int, int]:
    """Seconds per photo of an evaluation, bytes of its largest layer for a batch, and of one photo's features."""
    images, head = _noise(_PROBE_BATCH, recipe.preprocessing.crop, compute), head_of(module, recipe)
    layers, features = [0], [0]

    def note(layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        tensors = [tensor for tensor in (*inputs, output) if isinstance(tensor, Tensor)]
        # What works in place has one storage for both.
        layers.append(sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values()))
        if layer is head:
            features.append(4 * tensors[0].numel())

    module.eval()
    with torch.inference_mode(), compute.autocast():
        with nn.modules.module.register_module_forward_hook(note):
            module(images)
        seconds = _timed(lambda: module(images), compute)
    return seconds / _PROBE_BATCH, max(layers) * EVALUATION_BATCH // _PROBE_BATCH, features[-1] // _PROBE_BATCH


def _steps(recipe: Recipe, stage: Stage, module: Normalized, compute: Compute) -> tuple[float, int]:
    """Seconds per photo of a training step, and bytes that a whole batch keeps for its backward pass."""
    size = min(recipe.batch_size, _PROBE_BATCH)
    images = _noise(size, recipe.augmentation.size, compute)
    targets = torch.zeros(size, dtype=torch.int64, device=compute.device)
    optimizer = make_optimizer(parameter_groups(module, recipe.backbone.name, stage), stage.optimizer)
    training_mode(module, stage.frozen_statistics)
    kept = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}

    def step() -> None:
        with compute.autocast():
            outputs = [logits.float() for logits in module.with_auxiliaries(images)]
        loss = torch.stack([functional.cross_entropy(logits, targets) for logits in outputs]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()  # at a learning rate of 0: nothing moves
        optimizer.zero_grad(set_to_none=True)

    with _saved(kept) as saved:
        step()
    return _timed(step, compute) / size, sum(saved.values()) * recipe.batch_size // size


def _timed(run: Callable[[], object], compute: Compute) -> float:
    """Seconds of one call: the fastest of a few after a first that does not count."""
    run()
    spans = []
    for _ in range(_PROBE_STEPS):
        _wait(compute)
        began = time.perf_counter()
        run()
        _wait(compute)
        spans.append(time.perf_counter() - began)
    return min(spans)


def _wait(compute: Compute) -> None:
    if compute.device.type == "cuda":
        torch.cuda.synchronize()


@contextmanager
def _saved(kept: set[int]) -> Iterator[dict[int, int]]:
    """Bytes by storage of what autograd saves inside the block, apart from the storages in `kept`."""
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in kept:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield found


def _noise(count: int, side: int, compute: Compute) -> Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, device=compute.device)
