"""Greyscale input, another first convolution, and what pretrained kernels make of it."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from training.backbones import Normalized, build, lay_out
from training.compatibility import check_network
from training.recipe import Recipe
from training.sections import Normalization
from training.stem import first_convolution, first_pooling, fitted_kernels
from training.weights import Weights, fill

Make = Callable[..., Recipe]
GREY = {"mean": [0.1307], "std": [0.3081]}


def test_luma_is_pillows() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 41, 3), dtype=np.uint8)
    module = Normalized(nn.Identity(), Normalization(mean=(0,), std=(1,)))
    found = module(torch.from_numpy(pixels)[None]) * 255
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    assert torch.equal(found[0, 0].round().to(torch.uint8), torch.from_numpy(expected.copy()))


@pytest.mark.parametrize("fill_", ["sum", "mean"])
def test_one_channel_is_the_three_together(fill_: Literal["sum", "mean"]) -> None:
    kernels = torch.randn(4, 3, 5, 5)
    found = fitted_kernels(kernels, torch.Size((4, 1, 5, 5)), fill_)
    torch.testing.assert_close(found[:, 0], kernels.sum(1) if fill_ == "sum" else kernels.mean(1))


def test_kernels_are_cut_and_padded_around_their_centre() -> None:
    kernels = torch.randn(4, 3, 11, 11)
    assert torch.equal(fitted_kernels(kernels, torch.Size((4, 3, 3, 3)), "sum"), kernels[:, :, 4:7, 4:7])
    padded = fitted_kernels(kernels, torch.Size((4, 3, 15, 15)), "sum")
    assert torch.equal(padded[:, :, 2:-2, 2:-2], kernels)
    assert float(padded.abs().sum()) == pytest.approx(float(kernels.abs().sum()))


def test_alexnet_for_small_pictures(make_recipe: Make) -> None:
    stem = {"kernel": 3, "stride": 1, "padding": 1, "pool": {"kernel": 2, "stride": 2}}
    recipe = make_recipe(backbone={"name": "alexnet", "weights": "none", "stem": stem})
    assert check_network(recipe) == []
    module = build(recipe, classes=10)
    state = models.alexnet().state_dict()
    filled = fill(module, Weights(recipe.backbone, state, "alexnet", None))
    first = module.network.get_submodule("features.0")
    assert torch.equal(first.weight.detach(), state["features.0.weight"][:, :, 4:7, 4:7])
    assert (first.stride, first.padding, filled.filled) == ((1, 1), (1, 1), 14)
    pool = module.network.get_submodule("features.2")
    assert (pool.kernel_size, pool.stride) == (2, 2)


def test_mnist_resnet50_has_its_authors_first_convolution(make_recipe: Make) -> None:
    stem = {"kernel": 5, "stride": 2, "padding": 3, "bias": False}
    backbone = {"name": "resnet50", "weights": "none", "channels": 1, "stem": stem}
    module = lay_out(make_recipe(backbone=backbone, normalization=GREY))
    assert module.network.get_parameter("conv1.weight").shape == (64, 1, 5, 5)
    assert module.network.get_submodule("conv1").bias is None
    assert first_pooling(module.network) == "maxpool"


def test_a_pool_is_taken_out(make_recipe: Make) -> None:
    backbone = {"name": "resnet18", "weights": "none", "stem": {"kernel": 3, "padding": 1, "pool": "none"}}
    recipe = make_recipe(backbone=backbone)
    module = lay_out(recipe)
    assert isinstance(module.network.get_submodule("maxpool"), nn.Identity)
    assert module(torch.empty(2, 32, 32, 3, dtype=torch.uint8, device="meta")).shape == (2, 2)


def test_a_new_bias_is_said_out_loud(make_recipe: Make) -> None:
    recipe = make_recipe(backbone={"name": "resnet18", "weights": "none", "stem": {"kernel": 3, "bias": True}})
    filled = fill(build(recipe, 3), Weights(recipe.backbone, models.resnet18().state_dict(), "resnet18", None))
    assert filled.missing == ("conv1.bias",)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_grey_networks_that_transform_their_input(make_recipe: Make, name: str) -> None:
    module = lay_out(make_recipe(backbone={"name": name, "weights": "none", "channels": 1}, normalization=GREY))
    first = module.network.get_submodule(first_convolution(module.network))
    assert first.in_channels == 1
    assert module.eval()(torch.empty(2, 96, 96, 3, dtype=torch.uint8, device="meta")).shape == (2, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": {"name": "resnet18", "channels": 1}}, "`normalization.mean` has 3 values"),
        ({"normalization": GREY}, "`backbone.channels` is 3"),
        ({"backbone": {"name": "resnet18", "channels": 2}}, "backbone.channels: Input should be 1 or 3"),
        ({"backbone": {"name": "resnet18", "head": {"widths": [8, 4], "dropouts": [0.5]}}}, "2 widths and 1 dropouts"),
        ({"backbone": {"name": "resnet18", "stem": {"kernel": 0}}}, "backbone.stem.kernel"),
    ],
)
def test_surgery_that_is_refused_when_read(make_recipe: Make, changes: dict[str, Any], message: str) -> None:
    from inference.errors import RecipeInvalid

    with pytest.raises(RecipeInvalid, match=message):
        make_recipe(**changes)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"name": "mobilenet_v2", "stem": {"kernel": 3, "pool": "none"}}, "mobilenet_v2 has no max pooling"),
        ({"name": "vit_b_32", "stem": {"kernel": 16, "stride": 16}}, "built around its first convolution"),
        ({"name": "resnet18", "stem": {"kernel": 60}}, "resnet18 cannot take 32 pixels"),
        ({"name": "vgg16", "fresh": "classifier.9"}, "'classifier.9' matches no layer of vgg16; it has features, "),
        ({"name": "vit_b_16", "dropout": 0.1}, "no dropout before its head"),
    ],
)
def test_surgery_that_the_network_refuses(make_recipe: Make, backbone: dict[str, Any], message: str) -> None:
    problems = check_network(make_recipe(backbone=backbone | {"weights": "none"}))
    assert any(message in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("name", "crop", "size", "message"),
    [
        ("vit_b_32", 40, 40, "preprocessing.crop: vit_b_32 cannot be built for 40 pixels"),
        ("vit_b_32", 64, 32, "make it equal to preprocessing.crop, 64"),
        ("maxvit_t", 64, 64, "preprocessing.crop: maxvit_t cannot be built for 64 pixels"),
        ("inception_v3", 96, 96, "augmentation.size: inception_v3 cannot take 96 pixels"),
        ("partial_vgg16", 96, 224, "preprocessing.crop: partial_vgg16 cannot take 96 pixels"),
    ],
)
def test_sizes_that_the_network_refuses(make_recipe: Make, name: str, crop: int, size: int, message: str) -> None:
    recipe = make_recipe(
        backbone={"name": name, "weights": "none"},
        preprocessing={"resize": crop, "crop": crop},
        augmentation={"size": size},
    )
    assert [problem for problem in check_network(recipe) if message in problem], check_network(recipe)
