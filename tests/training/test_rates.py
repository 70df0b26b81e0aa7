import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference.errors import RecipeInvalid, RunInvalid
from training import rates
from training.backbones import lay_out
from training.rates import RangeTest, choose_stage, find_rate, smooth
from training.recipe import Recipe
from training.run import claim

Make = Callable[..., Recipe]
DEEP = {"name": "deep", "epochs": 1, "rates": {"head": 0.02, "backbone": 0.01}}


def find(recipe: Recipe, root: Path, folder: Path, **options: Any) -> RangeTest:
    return find_rate(recipe, root, None, folder, device="cpu", workers=0, **options)


def test_a_sweep_ends_where_the_loss_explodes_and_leaves_two_files(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "STEPS", 40)
    found = find(make_recipe(batch_size=12), photos_root, tmp_path / "run")
    assert found.stage == "everything"
    assert len(found.losses) <= 40
    assert found.rates[:2] == pytest.approx([1e-7, 1e-7 * 10 ** (8 / 39)])
    assert found.losses[0] == pytest.approx(math.log(3), rel=0.3)  # nothing is learnt yet
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["rates.csv", "rates.png"]
    with (tmp_path / "run" / "rates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == pytest.approx(found.losses, rel=1e-5)
    with Image.open(tmp_path / "run" / "rates.png") as picture:
        assert picture.size[0] > 600
    claim(tmp_path / "run", make_recipe(), resume=False)  # a training may follow here


def test_suggestions_of_a_loss_that_falls_and_explodes() -> None:
    powers = np.linspace(-7, 1, 81)
    losses = [2.0 - 1.5 / (1 + math.exp(-4 * (power + 3))) + math.exp(6 * (power + 0.5)) for power in powers]
    found = RangeTest("s", (10**powers).tolist(), losses)
    assert found.steepest is not None
    assert found.tenth is not None
    assert 10**-3.2 < found.steepest < 10**-2  # the average lags a little behind the fall at 1e-3
    assert found.steepest < 10 * found.tenth < 10**-0.5


@pytest.mark.parametrize("losses", [[1.0], [1.0, 2.0, 3.0], [1.0 + 0.1 * step for step in range(50)]])
def test_a_loss_that_never_falls_suggests_nothing(losses: list[float]) -> None:
    found = RangeTest("s", [0.1] * len(losses), losses)
    assert found.steepest is None
    assert found.tenth is None


def test_smoothing_has_no_bias() -> None:
    assert smooth([2.0] * 30) == pytest.approx([2.0] * 30)
    assert smooth([1.0, 2.0]) == pytest.approx([1.0, (0.9 * 0.1 * 1 + 0.1 * 2) / 0.19])


def test_the_stage_is_the_first_deep_one_or_the_named_one(make_recipe: Make) -> None:
    recipe = make_recipe()
    module = lay_out(recipe)
    assert choose_stage(recipe, module, None).name == "everything"
    assert choose_stage(recipe, module, "head").name == "head"
    alone = make_recipe(stages=[{"name": "a", "epochs": 1, "trains": "head", "rates": {"head": 0.1}}])
    assert choose_stage(alone, module, None).name == "a"
    with pytest.raises(RecipeInvalid, match=r"called 'hed'; those of shapes are head, everything"):
        choose_stage(recipe, module, "hed")
    solver = {"name": "svm", "epochs": 1, "trains": "head", "cached_features": True, "solver": {"kind": "svm"}}
    solved = make_recipe(stages=[solver])
    with pytest.raises(RecipeInvalid, match="no stage of shapes has a learning rate: its head is solved"):
        choose_stage(solved, module, None)


def test_what_cannot_be_swept_is_refused_before_any_photo_is_touched(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeInvalid, match="called 'hed'"):
        find(make_recipe(), tmp_path / "nowhere", tmp_path / "run", stage="hed")
    monkeypatch.setattr(rates.torchrun, "processes", lambda: 2)
    with pytest.raises(RunInvalid, match="start it without torchrun"):
        find(make_recipe(), tmp_path / "nowhere", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_is_said(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "_step", lambda *_: math.nan)
    with pytest.raises(RunInvalid, match="the loss is no number at any rate"):
        find(make_recipe(stages=[DEEP]), photos_root, tmp_path / "run")
    (tmp_path / "file").touch()
    with pytest.raises(RunInvalid, match="choose another folder with --run"):
        find(make_recipe(stages=[DEEP]), photos_root, tmp_path / "file")
