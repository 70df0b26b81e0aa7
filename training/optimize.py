"""How weights move: parameter groups, the optimizer, the moving average."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from training.backbones import Normalized, is_head
from training.sections import Optimizer, Stage


def parameter_groups(module: Normalized, backbone: str, stage: Stage) -> list[dict[str, object]]:
    """The trained parameters by learning rate and decay; `name` says which group, `peak` is its learning rate.

    Vectors (norms and biases) are not decayed, after He et al. 2019, "Bag of Tricks", section 3.1.
    """
    assert stage.rates is not None  # so every stage with gradients
    decay = stage.optimizer.weight_decay
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    for name, parameter in module.network.named_parameters():
        if parameter.requires_grad:
            part = "head" if is_head(name, backbone) else "backbone"
            groups.setdefault((part, decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    peaks = {"head": stage.rates.head, "backbone": stage.rates.backbone or stage.rates.head}
    return [
        {"params": parameters, "weight_decay": share, "lr": peaks[part], "peak": peaks[part], "name": part}
        for (part, share), parameters in groups.items()
    ]


def make_optimizer(groups: list[dict[str, object]], settings: Optimizer) -> torch.optim.Optimizer:
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
