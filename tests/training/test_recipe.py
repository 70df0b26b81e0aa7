import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference.errors import DataInvalid, RecipeInvalid
from training.compatibility import check_network
from training.recipe import Recipe, load_recipe, recipe_names

Write = Callable[[dict[str, Any]], Path]


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipe_loads_and_fits_its_network(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert check_network(recipe) == []


def test_the_two_classifiers_have_recipes() -> None:
    assert {"catdog", "flowers"} <= set(recipe_names())


def test_resolved_recipe_is_the_recipe(content: dict[str, Any], recipe_file: Write, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file(content))
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(again) == recipe
    assert load_recipe(again).digest == recipe.digest


def test_every_problem_is_listed_at_once(content: dict[str, Any], recipe_file: Write, photos_root: Path) -> None:
    content["bach_size"] = 8
    content["seed"] = "one"
    content["clip_norm"] = -1.0
    content["stages"][1]["rates"]["bakcbone"] = 0.1
    content["augmentation"]["scale"] = [0.9, 0.2]
    content["data"]["validation"] = {"folder": "nowhere"}
    del content["title"]
    with pytest.raises(RecipeInvalid) as caught:
        load_recipe(recipe_file(content), photos_root)
    for part in (
        "7 problems",
        "bach_size: unknown key; did you mean `batch_size`?",
        "seed: Input should be a valid integer, not 'one'",
        "clip_norm: Input should be greater than 0, not -1.0",
        "stages.1.rates.bakcbone: unknown key; did you mean `backbone`?",
        "`scale` must go from small to large",
        "title: is missing",
        "'nowhere' is not a folder",
    ):
        assert part in caught.value.detail


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data", {"train": {"share": 0.5, "of": "validation"}, "validation": {"folder": "x"}}, "must be a folder"),
        ("data", {"train": {"folder": "x", "share": 0.5}, "validation": {"folder": "x"}}, "give either"),
        ("data", {"train": {"folder": "x", "folders": {"a": "y"}}, "validation": {"folder": "x"}}, "give either"),
        (
            "data",
            {"train": {"folder": "x"}, "validation": {"share": 0.1, "of": "train", "most": {"a": 1}}},
            "not with a share",
        ),
        ("data", {"train": {"folder": "x", "most": {"a": 0}}, "validation": {"folder": "x"}}, "data.train.most.a"),
        (
            "data",
            {
                "train": {"folder": "x"},
                "validation": {"share": 0.6, "of": "train"},
                "test": {"share": 0.5, "of": "train"},
            },
            "nothing would be left",
        ),
        ("stages", [], "at least 1 item"),
        ("stages", [{"name": "a", "epochs": 1, "rates": {"head": 1.0}}] * 2, "same name"),
        ("stages", [{"name": "a", "epochs": 1, "cached_features": True, "rates": {"head": 1.0}}], "trains: head"),
        ("stages", [{"name": "a", "epochs": 1, "rates": {"head": 1.0}, "schedule": {"warm_up": 1}}], "whole stage"),
        ("batch_size", True, "batch_size: Input should be a valid integer"),
        ("batch_size", 8.5, "batch_size: Input should be a valid integer"),
        ("precision", "fp8", "precision: Input should be 'auto'"),
        ("preprocessing", {"resize": "256"}, "preprocessing.resize: Input should be a valid integer"),
        ("preprocessing", {"resize": 32, "crop": 64}, "crop 64 is larger than resize 32"),
        ("augmentation", {"size": 64, "shrink_to": 32}, "smaller than `size`"),
        ("normalization", {"mean": [0.5, 0.5], "std": [1, 1, 1]}, "normalization.mean"),
        ("normalization", {"mean": [float("nan"), 0, 0], "std": [1, 1, 1]}, "normalization.mean.0"),
        ("normalization", {"std": [1, 0, 1]}, "normalization.std.1: Input should be greater than 0"),
    ],
)
def test_impossible_values_are_refused(
    content: dict[str, Any], recipe_file: Write, key: str, value: object, message: str
) -> None:
    with pytest.raises(RecipeInvalid, match=message):
        load_recipe(recipe_file(content | {key: value}))


def test_changes_are_laid_over_the_file(content: dict[str, Any], recipe_file: Write) -> None:
    path = recipe_file(content)
    changes = ["stages.1.epochs=7", "backbone.weights=none", "clip_norm=5e-1", "augmentation.jitter.hue=0.1"]
    recipe = load_recipe(path, changes=changes)
    assert (recipe.stages[1].epochs, recipe.clip_norm, recipe.augmentation.jitter.hue) == (7, 0.5, 0.1)
    assert recipe.digest != load_recipe(path).digest


def test_a_change_reaches_one_place_of_an_anchor(tmp_path: Path, content: dict[str, Any], recipe_file: Write) -> None:
    content["stages"][1]["rates"] = content["stages"][0]["rates"]
    path = recipe_file(content)
    assert "&id001" in path.read_text("utf-8")
    first, second = load_recipe(path, changes=["stages.0.rates.head=0.5"]).stages
    assert (first.rates and first.rates.head, second.rates and second.rates.head) == (0.5, 0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed", "'seed' changes nothing; write KEY=VALUE"),
        ("stages.9.epochs=1", "'stages.9.epochs=1' changes nothing"),
        ("stages.first.epochs=1", "changes nothing"),
        ("seed.x=1", "changes nothing"),
        ("seed=[", "changes nothing"),
        ("title=&a [*a]", "changes nothing"),
        ("title={2001-01-01: 1}", "changes nothing"),
        (f"title={'[' * 2000}", "changes nothing"),
        ("sede=1", "sede: unknown key; did you mean `seed`"),
        ("seed=one", "seed: Input should be a valid integer, not 'one'"),
    ],
)
def test_impossible_changes(content: dict[str, Any], recipe_file: Write, change: str, message: str) -> None:
    with pytest.raises(RecipeInvalid, match=re.escape(message)):
        load_recipe(recipe_file(content), changes=[change])


def test_only_the_photos_are_wrong(content: dict[str, Any], recipe_file: Write, tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="is not a folder; give the folder that holds your photos"):
        load_recipe(recipe_file(content), tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "mobilnet_v2"}, "did you mean `mobilenet_v2`"),
        ({"name": "resnet18", "dropout": 0.5}, "no dropout before its head"),
        ({"name": "resnet18", "weights": "IMAGENET1K_V9"}, "IMAGENET1K_V1"),
        ({"name": "vgg11"}, "preprocessing.crop: vgg11 cannot take 16 pixels"),
    ],
)
def test_network_problems_are_found_before_training(
    content: dict[str, Any], recipe_file: Write, photos_root: Path, change: dict[str, Any], message: str
) -> None:
    content["backbone"] |= change
    content["preprocessing"] = {"resize": 16, "crop": 16}
    with pytest.raises(RecipeInvalid, match=message):
        load_recipe(recipe_file(content), photos_root)


def test_layers_that_do_not_exist(content: dict[str, Any], recipe_file: Write, photos_root: Path) -> None:
    content["stages"][1] |= {"trains": ["head", "features.99"], "freezes": "laier"}
    with pytest.raises(RecipeInvalid) as caught:
        load_recipe(recipe_file(content), photos_root)
    assert "stages.1.trains: 'features.99' matches no layer" in caught.value.detail
    assert "stages.1.freezes: 'laier' matches no layer" in caught.value.detail


def test_numbers_without_a_point_are_numbers(recipe_file: Write, content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "text.yaml"
    text = yaml.safe_dump(content | {"clip_norm": 7.125}).replace("7.125", "5e-1")
    path.write_text(text, encoding="utf-8")
    assert load_recipe(path).clip_norm == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("? [a, b]\n: c\n", "is not YAML"),
        ("a: \0", "is not YAML"),
        ("data: {2024-01-01: 1}\n", "is not YAML"),
        ("a: 2024-13-45\n", "is not YAML"),
        ("a: &a [*a]\n", "is not YAML"),
        ("a: !!int x\n", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("- a\n- b\n", "holds no keys"),
        ("", "holds no keys"),
        ("seed: 1\nseed: 2\n", r"seed: stands twice \(line 2\)"),
        ("seed: !!python/object:os.system {}\n", "is not YAML"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeInvalid, match=message):
        load_recipe(path)


def test_unknown_name_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeInvalid, match="did you mean `flowers`"):
        load_recipe("flower")
    with pytest.raises(RecipeInvalid, match="cannot be read"):
        load_recipe(tmp_path / "absent.yaml")


def test_recipe_is_frozen(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_recipe().batch_size = 3  # type: ignore[misc]
