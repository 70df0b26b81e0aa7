from collections.abc import Callable
from typing import Any

import pytest

from training.backbones import backbone_names, bare_network, lay_out
from training.blocks import depths
from training.compatibility import check_network
from training.freezing import trained_names
from training.recipe import Recipe
from training.sections import Stage


@pytest.mark.parametrize(
    ("name", "count", "near"),
    [
        ("resnet18", 10, {"fc.weight": 0, "layer4.1.bn2.weight": 1, "bn1.weight": 9, "conv1.weight": 9}),
        ("mobilenet_v2", 20, {"classifier.1.bias": 0, "features.18.0.weight": 1, "features.0.0.weight": 19}),
        ("vgg16", 16, {"classifier.6.weight": 0, "classifier.0.weight": 2, "features.28.weight": 3}),
        ("densenet121", 9, {"features.norm5.weight": 1, "features.denseblock4.denselayer1.conv1.weight": 1}),
        ("vit_b_16", 14, {"heads.head.weight": 0, "encoder.ln.weight": 1, "class_token": 13}),
        ("googlenet", 13, {"fc.weight": 0, "aux1.conv.conv.weight": 0, "inception5b.branch1.conv.weight": 1}),
        ("convnext_tiny", 23, {"classifier.0.weight": 1, "features.7.2.block.0.weight": 1}),
    ],
)
def test_blocks_are_counted_from_the_head(name: str, count: int, near: dict[str, int]) -> None:
    found = depths(bare_network(name), name)
    assert set(found.values()) == set(range(count))
    assert near.items() <= found.items()


def test_every_parameter_of_every_backbone_has_its_place() -> None:
    # Not each: laying out all of them takes a minute.
    for name in backbone_names()[::7]:
        network = bare_network(name)
        found = depths(network, name)
        assert list(found) == [key for key, _ in network.named_parameters()]
        assert set(found.values()) == set(range(max(found.values()) + 1))
        assert len(set(found.values())) > 4


@pytest.mark.parametrize(
    ("trains", "freezes", "outer"),
    [
        ("last 1", (), {"fc"}),
        ("last 3", (), {"layer4.1", "layer4.0", "fc"}),
        (("last 2", "conv1"), "head", {"layer4.1", "conv1"}),
        ("all", "last 9", {"conv1", "bn1"}),
    ],
)
def test_the_last_blocks_can_be_named(
    make_recipe: Callable[..., Recipe], trains: Any, freezes: Any, outer: set[str]
) -> None:
    module = lay_out(make_recipe(backbone={"name": "resnet18", "weights": "none"}))
    stage = Stage.model_validate(
        {"name": "s", "epochs": 1, "rates": {"head": 0.1}, "trains": trains, "freezes": freezes}
    )
    names = trained_names(module, "resnet18", stage)
    assert {".".join(name.split(".")[: 2 if name.startswith("layer") else 1]) for name in names} == outer


@pytest.mark.parametrize("word", ["last 11", "last 0", "last three", "last 99999"])
def test_blocks_that_are_not_there_are_refused(make_recipe: Callable[..., Recipe], word: str) -> None:
    stages = [{"name": "s", "epochs": 1, "rates": {"head": 0.1}, "trains": word}]
    recipe = make_recipe(backbone={"name": "resnet18", "weights": "none"}, stages=stages)
    assert check_network(recipe) == [
        f"stages.0.trains: resnet18 has 10 blocks, its head among them; choose `last 1` to `last 10`, not {word!r}"
    ]
