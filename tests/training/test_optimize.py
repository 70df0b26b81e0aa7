from collections.abc import Callable
from typing import Any

import pytest
import torch

from training.backbones import build
from training.freezing import freeze, trained_names
from training.optimize import Average, make_optimizer, parameter_groups, peaks, set_rates
from training.recipe import Recipe
from training.sections import Optimizer, Rates, Stage


def test_groups_split_head_from_backbone_and_leave_vectors_undecayed(make_recipe: Callable[..., Recipe]) -> None:
    stage = Stage.model_validate({"name": "s", "epochs": 1, "rates": {"head": 0.1, "backbone": 0.01}})
    module = build(make_recipe(), 3)
    freeze(module, trained_names(module, "mobilenet_v3_small", stage))
    groups = parameter_groups(module, "mobilenet_v3_small", stage)
    found = {(group["name"], group["weight_decay"]): group for group in groups}
    assert set(found) == {("head", 1e-4), ("head", 0.0), ("backbone", 1e-4), ("backbone", 0.0)}
    assert found["head", 0.0]["peak"] == 0.1
    assert found["backbone", 1e-4]["lr"] == 0.01
    for (_, decay), group in found.items():
        assert all((parameter.ndim > 1) == (decay > 0) for parameter in group["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))


def test_rates_decay_block_by_block_away_from_the_head(make_recipe: Callable[..., Recipe]) -> None:
    rates = {"head": 0.1, "backbone": 0.01, "decay": 0.5}
    stage = Stage.model_validate({"name": "s", "epochs": 1, "rates": rates})
    module = build(make_recipe(backbone={"name": "resnet18", "weights": "none"}), 3)
    groups = parameter_groups(module, "resnet18", stage)
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    found = {name: rate[id(parameter)] for name, parameter in module.network.named_parameters()}
    assert found["fc.weight"] == 0.1
    blocks = ("layer4.1", "layer4.0", "layer3.1", "layer3.0", "layer2.1", "layer2.0", "layer1.1", "layer1.0")
    for depth, block in enumerate(blocks, start=1):
        assert {found[name] for name in found if name.startswith(f"{block}.")} == {0.01 * 0.5**depth}
    assert found["conv1.weight"] == found["bn1.bias"] == 0.01 * 0.5**9
    assert peaks(groups) == "head 0.1, backbone 1.95e-05…0.005"
    alone = stage.model_copy(update={"rates": Rates(head=0.1)})
    assert peaks(parameter_groups(module, "resnet18", alone)) == "head 0.1, backbone 0.1"


@pytest.mark.parametrize(
    ("kind", "made"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_optimizers_take_their_settings(kind: Any, made: type) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    groups: list[dict[str, object]] = [
        {"params": [weight], "lr": 0.5, "peak": 0.5, "weight_decay": 0.1, "name": "head"}
    ]
    optimizer = make_optimizer(groups, Optimizer(kind=kind, weight_decay=0.1, momentum=0.5, betas=(0.8, 0.9)))
    assert type(optimizer) is made
    group = optimizer.param_groups[0]
    assert group["weight_decay"] == 0.1
    assert group["momentum"] == 0.5 if kind == "sgd" else group["betas"] == (0.8, 0.9)
    set_rates(optimizer, 0.25)
    assert group["lr"] == 0.125


@pytest.mark.parametrize(("momentum", "wanted", "made"), [(0.9, True, True), (0.9, False, False), (0.0, True, False)])
def test_nesterov_needs_momentum(momentum: float, wanted: bool, made: bool) -> None:
    groups: list[dict[str, object]] = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.5}]
    optimizer = make_optimizer(groups, Optimizer(momentum=momentum, nesterov=wanted))
    assert optimizer.param_groups[0]["nesterov"] is made


def test_average_follows_weights_and_statistics(make_recipe: Callable[..., Recipe]) -> None:
    module = build(make_recipe(), 3)
    average = Average(module, 0.5)
    key = "network.features.0.1.running_mean"
    start = average.module.state_dict()[key].clone()
    with torch.no_grad():
        for value in (*module.parameters(), *module.buffers()):
            if value.is_floating_point():
                value.add_(1.0)
    average.update(module)
    # The first decay is min(0.5, 2/11).
    torch.testing.assert_close(average.module.state_dict()[key], start + 9 / 11)
    assert average.updates == 1
    for _ in range(40):
        average.update(module)
    torch.testing.assert_close(average.module.state_dict()[key], start + 1, atol=1e-4, rtol=0)
    average.restart(module)
    assert average.updates == 0
    assert torch.equal(average.module.state_dict()[key], module.state_dict()[key])
