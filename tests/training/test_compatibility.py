from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from petalpaw import app
from training.compatibility import idle_keys
from training.recipe import Recipe
from training.strategies import propose

Make = Callable[..., Recipe]
CACHED = {"name": "head", "epochs": 1, "trains": "head", "cached_features": True, "rates": {"head": 0.01}}
SOLVED = {"name": "svm", "epochs": 1, "trains": "head", "cached_features": True, "solver": {"kind": "svm"}}
DEEP = {"name": "deep", "epochs": 1, "rates": {"head": 0.01}, "frozen_statistics": True}
PLAIN: dict[str, Any] = {"augmentation": {"size": 32}, "label_smoothing": 0.0, "average": None}


def test_keys_that_change_nothing_in_any_stage(make_recipe: Make) -> None:
    wild: dict[str, Any] = {
        "backbone": {"name": "mobilenet_v2", "weights": "none", "dropout": 0.9},
        "augmentation": {"size": 32, "shrink_to": 64, "mixup": 0.2},
        "label_smoothing": 0.1,
        "average": None,
        "clip_norm": 1.0,
    }
    assert idle_keys(make_recipe(**wild, stages=[CACHED, DEEP])) == []
    assert idle_keys(make_recipe(**wild, stages=[CACHED])) == ["augmentation.mixup", "backbone.dropout"]
    solved = ["augmentation.mixup", "backbone.dropout", "label_smoothing", "clip_norm"]
    assert idle_keys(make_recipe(**wild, stages=[SOLVED])) == solved
    stages = [CACHED | {"frozen_statistics": True}, SOLVED | {"optimizer": {"kind": "adam"}}]
    assert idle_keys(make_recipe(**PLAIN, stages=stages)) == ["stages.0.frozen_statistics", "stages.1.optimizer"]


@pytest.mark.parametrize("strategy", ["features", "finetune", "svm", "logistic", "scratch"])
def test_no_strategy_sets_a_key_in_vain(photos_root: Path, strategy: Any) -> None:
    assert idle_keys(propose(photos_root / "shapes", strategy).recipe) == []


def test_idle_keys_are_said_when_training_begins(
    make_recipe: Make, photos_root: Path, tmp_path: Path, recipe_file: Callable[..., Path]
) -> None:
    recipe = make_recipe(**PLAIN | {"augmentation": {"size": 32, "mixup": 0.2}}, stages=[SOLVED])
    path = recipe_file(recipe.model_dump(mode="json"))
    arguments = ["train", str(path), "--data", str(photos_root), "--run", str(tmp_path / "run"), "--device", "cpu"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "every stage they could change trains on cached features: augmentation.mixup" in result.stderr
