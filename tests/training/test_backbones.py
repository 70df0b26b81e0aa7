from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.transforms import v2

from training.backbones import (
    Normalized,
    backbone_facts,
    backbone_names,
    bare_network,
    build,
    head_layers,
    is_head,
    published_weights,
)
from training.freezing import freeze, trained_names, training_mode
from training.networks import SOURCES
from training.recipe import Recipe
from training.sections import Normalization, Stage

Make = Callable[..., Recipe]


def stage_of(**changes: Any) -> Stage:
    return Stage.model_validate({"name": "s", "epochs": 1, "rates": {"head": 0.1}} | changes)


@pytest.mark.parametrize("name", backbone_names())
def test_the_head_is_found_in_every_backbone(name: str) -> None:
    facts = backbone_facts(name)
    assert len(facts.head) == {"googlenet": 3, "inception_v3": 2}.get(name, 1)
    for layer in facts.head:
        head = bare_network(name).get_submodule(layer)
        assert (head.out_channels if isinstance(head, nn.Conv2d) else head.out_features) == 10_007
    # torchvision counts GoogLeNet without its auxiliary outputs.
    published = {"googlenet": 13_004_888, "partial_vgg16": 43_567_942, "resnet34_projected": 21_797_672 + 64 * 64 + 128}
    assert facts.parameters == published.get(name, published_weights(name).DEFAULT.meta["num_params"])


def test_every_network_of_torchvision_is_there() -> None:
    assert set(backbone_names()) == {*models.list_models(module=models), *SOURCES}


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "mobilenet_v3_small", "resnet18", "efficientnet_b0", "squeezenet1_1", "shufflenet_v2_x0_5"]
)
def test_a_step_trains_exactly_the_head(make_recipe: Make, name: str) -> None:
    torch.manual_seed(0)
    module = build(make_recipe(backbone={"name": name, "weights": "none"}), classes=4)
    freeze(module, trained_names(module, name, stage_of(trains="head")))
    training_mode(module)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    logits = module(images)
    assert logits.shape == (2, 4)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1.0).step()
    changed = {key for key, value in module.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(is_head(key.removeprefix("network."), name) for key in changed)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"])
def test_activations_make_new_outputs_and_the_same_gradients(make_recipe: Make, name: str) -> None:
    ours = build(make_recipe(backbone={"name": name, "weights": "none"}, channels_last=False), classes=4).network
    theirs = models.get_model(name, weights=None, num_classes=4)
    theirs.load_state_dict(ours.state_dict())
    images, gradients = torch.rand(2, 3, 64, 64), []
    for network in (ours, theirs):
        torch.manual_seed(0)
        network(images).sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(map(torch.equal, *gradients))
    assert not any(layer.inplace for layer in ours.modules() if isinstance(layer, nn.Hardtanh | nn.Hardswish | nn.SiLU))


def test_normalized_is_totensor_and_normalize() -> None:
    images = torch.randint(0, 256, (3, 9, 7, 3), dtype=torch.uint8)
    normalization = Normalization()
    module = Normalized(nn.Identity(), normalization)
    expected = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(normalization.mean, normalization.std)])
    torch.testing.assert_close(module(images), expected(images.permute(0, 3, 1, 2)), atol=2e-6, rtol=0)
    assert module(images).is_contiguous(memory_format=torch.channels_last)


def test_folded_normalisation_leaves_pixels_in_0_to_1() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    module = Normalized(nn.Identity(), Normalization(mean=(0, 0, 0), std=(1, 1, 1)))
    torch.testing.assert_close(module(images).flatten(), torch.tensor([0, 0.2, 1]))


@pytest.mark.parametrize(
    ("trains", "freezes", "first", "count"),
    [
        ("head", (), "classifier.1.weight", 2),
        (("classifier", "features.18"), (), "features.18.0.weight", 5),
        ("all", ("features.[0-9]", "features.1[0-8]"), "classifier.1.weight", 2),
        ("features.1[78]", (), "features.17.conv.0.0.weight", 12),
        ("*.bias", (), "features.0.1.bias", 53),
    ],
)
def test_layer_names_choose_parameters(
    make_recipe: Make, trains: Any, freezes: tuple[str, ...], first: str, count: int
) -> None:
    with torch.device("meta"):
        module = build(make_recipe(backbone={"name": "mobilenet_v2", "weights": "none"}), classes=3)
    names = trained_names(module, "mobilenet_v2", stage_of(trains=trains, freezes=freezes))
    assert (names[0], len(names)) == (first, count)


def test_frozen_batch_norm_keeps_its_statistics(make_recipe: Make) -> None:
    module = build(make_recipe(backbone={"name": "resnet18", "weights": "none"}), classes=3)
    freeze(module, trained_names(module, "resnet18", stage_of(trains=("head", "layer4"))))
    training_mode(module)
    before = {key: value.clone() for key, value in module.state_dict().items() if "running" in key}
    module(torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8))
    moved = {key for key, value in module.state_dict().items() if key in before and not torch.equal(value, before[key])}
    assert moved
    assert all(key.startswith("network.layer4") for key in moved)


def test_statistics_can_be_frozen_in_trained_layers(make_recipe: Make) -> None:
    module = build(make_recipe(), classes=3)
    training_mode(module, frozen_statistics=True)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert not any(layer.training for layer in norms)
    assert all(layer.weight.requires_grad for layer in norms)
    assert all(layer.training for layer in module.modules() if isinstance(layer, nn.Dropout))


def test_dropout_of_a_frozen_backbone_is_off(make_recipe: Make) -> None:
    module = build(make_recipe(backbone={"name": "efficientnet_b0", "weights": "none"}), classes=3)
    freeze(module, trained_names(module, "efficientnet_b0", stage_of(trains="head")))
    training_mode(module)
    states = {type(layer).__name__: layer.training for layer in module.network.modules() if not list(layer.children())}
    assert states["StochasticDepth"] is False
    assert states["Dropout"] is True


def test_dropout_of_the_recipe_is_set_before_the_head(make_recipe: Make) -> None:
    with torch.device("meta"):
        module = build(make_recipe(backbone={"name": "vgg11", "weights": "none", "dropout": 0.3}), classes=3)
    assert [layer.p for layer in module.modules() if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


def test_head_layers_of_some() -> None:
    found = [head_layers(name) for name in ("resnet50", "vgg16", "densenet121", "squeezenet1_0")]
    assert found == [("fc",), ("classifier.6",), ("classifier",), ("classifier.1",)]
