"""Heads of several layers, and auxiliary outputs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from training.backbones import AUXILIARY_WEIGHTS, build, is_head, lay_out
from training.freezing import freeze, trained_names, training_mode
from training.loss import Loss
from training.recipe import Recipe
from training.sections import Stage
from training.weights import Weights, fill

Make = Callable[..., Recipe]
HEAD = Stage.model_validate({"name": "s", "epochs": 1, "rates": {"head": 0.1}, "trains": "head"})


def test_efficientnet_b7_with_its_authors_head(make_recipe: Make) -> None:
    head = {"widths": [4096, 2048], "dropouts": [0.5, 0.5]}
    module = lay_out(make_recipe(backbone={"name": "efficientnet_b7", "weights": "none", "head": head}), classes=5)
    layers = list(module.network.get_submodule("classifier.1").children())
    assert [type(layer) for layer in layers] == [
        nn.Linear,
        nn.ReLU,
        nn.Dropout,
        nn.Linear,
        nn.ReLU,
        nn.Dropout,
        nn.Linear,
    ]
    shapes = [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, nn.Linear)]
    assert shapes == [(2560, 4096), (4096, 2048), (2048, 5)]
    trained = trained_names(module, "efficientnet_b7", HEAD)
    assert trained == [f"classifier.1.{layer}.{kind}" for layer in (0, 3, 6) for kind in ("weight", "bias")]


def test_a_fully_convolutional_network_gets_convolutions(make_recipe: Make) -> None:
    head = {"widths": [16], "dropouts": [0.0]}
    module = lay_out(make_recipe(backbone={"name": "squeezenet1_1", "weights": "none", "head": head}), classes=3)
    layers = list(module.network.get_submodule("classifier.1").children())
    assert [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)] == [16, 3]
    assert module(torch.empty(2, 64, 64, 3, dtype=torch.uint8, device="meta")).shape == (2, 3)


@pytest.mark.parametrize(("name", "outputs"), [("googlenet", 3), ("inception_v3", 2)])
def test_auxiliary_outputs_train_and_are_silent_in_evaluation(make_recipe: Make, name: str, outputs: int) -> None:
    module = lay_out(make_recipe(backbone={"name": name, "weights": "none"}), classes=4)
    images = torch.empty(2, 299, 299, 3, dtype=torch.uint8, device="meta")
    assert [logits.shape for logits in module.train().with_auxiliaries(images)] == [(2, 4)] * outputs
    assert module(images).shape == (2, 4)
    assert len(module.eval().with_auxiliaries(images)) == 1


def test_auxiliary_heads_belong_to_the_head(make_recipe: Make) -> None:
    torch.manual_seed(0)
    module = build(make_recipe(backbone={"name": "googlenet", "weights": "none"}), classes=3)
    freeze(module, trained_names(module, "googlenet", HEAD))
    training_mode(module)
    images, targets = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8), torch.tensor([0, 1])
    outputs = module.with_auxiliaries(images)
    loss = Loss(auxiliary=AUXILIARY_WEIGHTS["googlenet"])
    total = loss.total(outputs, targets)
    expected = loss(outputs[0], targets) + 0.3 * loss(outputs[1], targets) + 0.3 * loss(outputs[2], targets)
    torch.testing.assert_close(total, expected)
    total.backward()
    moved = {key for key, parameter in module.network.named_parameters() if parameter.grad is not None}
    assert moved == {f"{layer}.{kind}" for layer in ("fc", "aux1.fc2", "aux2.fc2") for kind in ("weight", "bias")}
    assert all(is_head(key, "googlenet") for key in moved)


def test_cached_features_are_the_main_outputs(make_recipe: Make) -> None:
    module = lay_out(make_recipe(backbone={"name": "googlenet", "weights": "none"}))
    cached = HEAD.model_copy(update={"cached_features": True})
    assert trained_names(module, "googlenet", cached) == ["fc.weight", "fc.bias"]


def test_outputs_that_nothing_trains_through_are_left_out(make_recipe: Make) -> None:
    module = build(make_recipe(backbone={"name": "googlenet", "weights": "none"}), classes=3)
    freeze(module, ["fc.weight", "fc.bias"])
    training_mode(module)
    assert len(module.with_auxiliaries(torch.zeros(2, 32, 32, 3, dtype=torch.uint8))) == 1


def state_of(name: str) -> dict[str, torch.Tensor]:
    from torchvision import models

    return {key: torch.ones(value.shape) for key, value in models.get_model(name).state_dict().items()}


def test_fresh_layers_stay_random(make_recipe: Make) -> None:
    recipe = make_recipe(backbone={"name": "alexnet", "weights": "none", "fresh": "classifier.4"})
    module = build(recipe, classes=3)
    filled = fill(module, Weights(recipe.backbone, state_of("alexnet"), "alexnet", None))
    assert filled.fresh == ("classifier.4.weight", "classifier.4.bias")
    assert "left random as the recipe asks: classifier.4.weight, classifier.4.bias" in str(filled)
    assert float(module.network.get_parameter("classifier.4.weight").detach().max()) < 1
    assert float(module.network.get_parameter("classifier.1.weight").detach().min()) == 1


@pytest.mark.parametrize(
    ("backbone", "other"), [("resnet34", "resnet50"), ("vgg11", "vgg11_bn"), ("mobilenet_v2", "mobilenet_v3_small")]
)
def test_another_familys_weights_are_refused(make_recipe: Make, backbone: str, other: str) -> None:
    from inference.errors import RunInvalid

    recipe = make_recipe(backbone={"name": backbone, "weights": "none"})
    module = build(recipe, classes=3)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(RunInvalid, match=r"another backbone than|fits the network"):
        fill(module, Weights(recipe.backbone, state_of(other), other, None))
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_position_embeddings_follow_the_size(make_recipe: Make) -> None:
    sizes: dict[str, Any] = {"preprocessing": {"resize": 64, "crop": 64}, "augmentation": {"size": 64}}
    recipe = make_recipe(backbone={"name": "vit_b_32", "weights": "none"}, **sizes)
    module = build(recipe, classes=3)
    state = module.network.state_dict() | {"encoder.pos_embedding": torch.full((1, 50, 768), 0.5)}
    fill(module, Weights(recipe.backbone, state, "vit", None))
    torch.testing.assert_close(
        module.network.get_parameter("encoder.pos_embedding").detach(), torch.full((1, 5, 768), 0.5)
    )
