"""Our own networks."""

from collections.abc import Callable

import torch
from torchvision import models

from training.backbones import build, lay_out
from training.freezing import freeze, trained_names
from training.recipe import Recipe
from training.sections import Stage
from training.weights import Weights, fill

GREY = {"backbone": {"name": "partial_vgg16", "weights": "none", "channels": 1}} | {
    "normalization": {"mean": [0.5], "std": [0.25]},
    "preprocessing": {"resize": 224, "crop": 224},
    "augmentation": {"size": 224},
}


def test_partial_vgg16_counts_what_its_authors_count(make_recipe: Callable[..., Recipe]) -> None:
    module = lay_out(make_recipe(**GREY), classes=2)
    stage = Stage.model_validate(
        {"name": "s", "epochs": 1, "rates": {"head": 0.1}, "freezes": ("features.0", "features.2", "features.28")}
    )
    freeze(module, trained_names(module, "partial_vgg16", stage))
    parameters = list(module.parameters())
    assert sum(parameter.numel() for parameter in parameters) == 42_544_992
    assert sum(parameter.numel() for parameter in parameters if parameter.requires_grad) == 40_146_464
    assert module.network(torch.empty(16, 1, 224, 224, device="meta")).shape == (16, 2)


def test_partial_vgg16_borrows_three_convolutions(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(**GREY)
    with torch.device("meta"):
        shapes = models.vgg16().state_dict()
    state = {key: torch.full(value.shape, 0.5) for key, value in shapes.items() if "features" in key}
    module = build(recipe, classes=2)
    filled = fill(module, Weights(recipe.backbone, state, "vgg16", None))
    assert filled.filled == 6
    assert not filled.wrong_shape
    borrowed = [module.network.get_parameter(f"features.{key}.weight") for key in ("0", "2", "28")]
    assert all(bool((weight == 0.5).all()) for weight in borrowed)
    assert filled.missing == ("features.grey", "features.widen", "top")


def test_every_stage_of_resnet34_projected_begins_with_a_projection(make_recipe: Callable[..., Recipe]) -> None:
    torch.manual_seed(0)
    recipe = make_recipe(backbone={"name": "resnet34_projected", "weights": "none"})
    module = build(recipe, classes=3)
    projections = [name for name, _ in module.network.named_modules() if name.endswith("downsample")]
    assert projections == [f"layer{stage}.0.downsample" for stage in (1, 2, 3, 4)]
    filled = fill(module, Weights(recipe.backbone, models.resnet34(num_classes=3).state_dict(), "resnet34", None))
    assert filled.missing == ("layer1.0.downsample",)
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    module(images).sum().backward()
    assert module.network.get_parameter("layer1.0.downsample.0.weight").grad is not None
