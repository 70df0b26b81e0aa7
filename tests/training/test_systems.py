"""The recipes of the ten systems: each says what it reproduces, and does so to the number where there is one."""

import re
from pathlib import Path

import pytest
import torch

from inference.errors import PetalpawError
from training.backbones import build
from training.freezing import freeze, trained_names
from training.recipe import RECIPES, load_recipe, recipe_names

DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"
HEADER = ("Reproduces", "Reported", "Done right", "Command", "Measured")
SYSTEMS = {
    "catdog-vgg16": 1,
    "catdog-partial-vgg16": 2,
    "flowers-googlenet": 3,
    "flowers-resnet50": 4,
    "flowers-efficientnet-b7": 5,
    "four-resnet34": 6,
    "four-resnet34-features": 6,
    "mnist-resnet50": 7,
    "cifar10-resnet18": 8,
    "cifar10-alexnet": 9,
    "cifar10-resnet34": 10,
}


def test_all_ten_systems_are_there() -> None:
    assert set(SYSTEMS.values()) == set(range(1, 11))
    assert set(SYSTEMS) | {"catdog", "flowers"} == set(recipe_names())


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_header_says_what_the_recipe_is(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text("utf-8")
    header = text[: text.index("\nname:")]
    assert re.match(rf"# System {SYSTEMS[name]}[ab]?: ", header)
    assert re.findall(r"^# ([A-Z][a-z ]+): ", header, re.MULTILINE)[-len(HEADER) :] == list(HEADER)
    assert f"# Command: petalpaw train {name} --data DATA" in header


def test_the_recipes_page_has_a_row_per_recipe() -> None:
    row = re.compile(r"^\| (\d+)[ab]? \| `petalpaw train ([\w-]+) --data DATA` \|", re.MULTILINE)
    rows = row.findall(DOCS.read_text("utf-8"))
    assert {name: int(number) for number, name in rows} == SYSTEMS


@pytest.mark.parametrize(
    ("name", "classes", "trained", "total"),
    [
        ("catdog-vgg16", 2, 16_789_506, 134_268_738),
        ("catdog-partial-vgg16", 2, 40_146_464, 42_544_992),
        ("flowers-resnet50", 5, 10_245, 23_518_277),
        ("four-resnet34", 4, 21_286_724, 21_286_724),
        ("four-resnet34-features", 4, 2_052, 21_286_724),
    ],
)
def test_as_many_parameters_train_as_the_sources_say(name: str, classes: int, trained: int, total: int) -> None:
    recipe = load_recipe(name)
    with torch.device("meta"):
        module = build(recipe, classes)
    freeze(module, trained_names(module, recipe.backbone.name, recipe.stages[0]))
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.network.parameters()]
    assert sum(size for size, _ in sizes) == total
    assert sum(size for size, trains in sizes if trains) == trained


def test_vgg19_is_one_line_away(tmp_path: Path) -> None:
    text = (RECIPES / "catdog-vgg16.yaml").read_text("utf-8")
    (tmp_path / "vgg19.yaml").write_text(text.replace("  name: vgg16\n", "  name: vgg19\n"), encoding="utf-8")
    assert load_recipe(tmp_path / "vgg19.yaml").backbone.name == "vgg19"


@pytest.mark.parametrize("name", ["four-resnet34", "mnist-resnet50"])
def test_missing_photos_are_said_with_the_way_to_get_them(name: str, tmp_path: Path) -> None:
    with pytest.raises(PetalpawError, match="petalpaw data fetch"):
        load_recipe(name, tmp_path)
