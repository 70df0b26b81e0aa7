"""How weights move: parameter groups, the optimizer, the moving average."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from training.backbones import Normalized, is_head
from training.blocks import depths
from training.sections import Optimizer, Stage


def parameter_groups(module: Normalized, backbone: str, stage: Stage) -> list[dict[str, Any]]:
    """The trained parameters by learning rate and decay; `name` says which group, `peak` is its learning rate.

    Vectors (norms and biases) are not decayed, after He et al. 2019, "Bag of Tricks", section 3.1. A block of the
    backbone learns at its rate times `rates.decay` for each block from there to the head, itself counted.
    """
    assert stage.rates is not None  # so every stage with gradients
    rates, share = stage.rates, stage.optimizer.weight_decay
    depth = depths(module.network, backbone)
    groups: dict[tuple[str, float, float], list[nn.Parameter]] = {}
    for name, parameter in module.network.named_parameters():
        if parameter.requires_grad:
            head = is_head(name, backbone)
            peak = rates.head if head else (rates.backbone or rates.head) * rates.decay ** depth[name]
            key = "head" if head else "backbone", peak, share if parameter.ndim > 1 else 0.0
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr": peak, "peak": peak, "name": part}
        for (part, peak, decay), parameters in groups.items()
    ]


def peaks(groups: list[dict[str, Any]]) -> str:
    """The groups' learning rates at the top of the schedule, for people."""
    parts = []
    for part in ("head", "backbone"):
        rates = sorted({group["peak"] for group in groups if group["name"] == part})
        if rates:
            parts.append(f"{part} {'…'.join(f'{rate:.3g}' for rate in dict.fromkeys((rates[0], rates[-1])))}")
    return ", ".join(parts)


def make_optimizer(groups: list[dict[str, Any]], settings: Optimizer) -> torch.optim.Optimizer:
    """The recipe's optimizer over the groups."""
    if settings.kind == "sgd":
        ahead = settings.nesterov and settings.momentum > 0
        return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum, nesterov=ahead)
    kind = torch.optim.Adam if settings.kind == "adam" else torch.optim.AdamW
    return kind(groups, lr=0.0, betas=settings.betas)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's learning rate to its peak times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


class Average:
    """Exponential moving average of a module's weights and buffers.

    The decay grows with the number of updates, min(decay, (1 + n) / (10 + n)), so that the average follows quickly
    at first (as in TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, module: Normalized, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, module: Normalized) -> None:
        """Move the average towards the module's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for mean, now in zip(_tensors(self.module), _tensors(module), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)

    def restart(self, module: Normalized) -> None:
        """Forget the past: a new stage averages its own weights only."""
        self.module.load_state_dict(module.state_dict())
        self.updates = 0


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
