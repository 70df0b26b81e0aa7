"""How gradients move weights, over whole runs."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inference.errors import RunInvalid
from training import assess, finetune
from training.checkpoint import read
from training.history import read_history
from training.recipe import Recipe

Make = Callable[..., Recipe]

# No batch norm and no dropout: a batch in parts can give what the whole gives.
PLAIN: dict[str, Any] = {
    "backbone": {"name": "squeezenet1_1", "weights": "none", "dropout": 0.0},
    "precision": "fp32",
    "class_weights": "balanced",
    "clip_norm": 0.5,
}


@pytest.fixture(autouse=True)
def weights_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and pictures take longer than such a training."""
    monkeypatch.setattr(finetune, "assess", lambda *_: None)
    monkeypatch.setattr(assess, "_draw_batch", lambda *_: None)


def run(recipe: Recipe, root: Path, folder: Path, **options: Any) -> finetune.RunResult:
    return finetune.train(recipe, root, None, folder, device="cpu", workers=0, **options)


def stage(**changes: Any) -> list[dict[str, Any]]:
    return [{"name": "s", "epochs": 2, "rates": {"head": 0.01}} | changes]


@pytest.mark.parametrize("nesterov", [False, True])
def test_batches_in_parts_move_the_weights_as_whole_ones_do(
    make_recipe: Make, photos_root: Path, tmp_path: Path, nesterov: bool
) -> None:
    # Not Adam: it makes whole steps of gradients that are rounding errors.
    settings = PLAIN | {"stages": stage(optimizer={"nesterov": nesterov}, schedule={"kind": "onecycle"})}
    run(make_recipe(**settings, batch_size=12), photos_root, tmp_path / "whole")
    run(make_recipe(**settings, batch_size=3, accumulate=4), photos_root, tmp_path / "parts")
    whole, parts = (read(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert parts["average_updates"] == whole["average_updates"] == 4
    for key in ("module", "average"):
        for name, value in whole[key].items():
            torch.testing.assert_close(parts[key][name], value, atol=2e-6, rtol=1e-4)
    whole_rows, parts_rows = (read_history(tmp_path / name / "history.csv") for name in ("whole", "parts"))
    assert [row.rate for row in parts_rows] == [row.rate for row in whole_rows]
    assert whole_rows[0].rate != whole_rows[1].rate


def test_the_last_batches_of_an_epoch_make_a_step_of_their_own(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, move = finetune._step, finetune._move
    order: list[float | str] = []

    def counted_step(*arguments: Any) -> Any:
        order.append(arguments[-1])
        return step(*arguments)

    def counted_move(*arguments: Any) -> None:
        order.append("move")
        move(*arguments)

    monkeypatch.setattr(finetune, "_step", counted_step)
    monkeypatch.setattr(finetune, "_move", counted_move)
    run(make_recipe(stages=stage(epochs=1), batch_size=4, accumulate=4), photos_root, tmp_path / "run")
    assert order == [0.25, 0.25, 0.25, 0.25, "move", 0.5, 0.5, "move"]
    assert read(tmp_path / "run" / "last.pt")["average_updates"] == 2


@pytest.mark.parametrize("accumulate", [3, 50])
def test_a_loss_that_is_no_number_is_found_in_any_part(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    step, steps = finetune._step, itertools.count()

    def broken(*arguments: Any) -> tuple[Tensor, Tensor]:
        loss, correct = step(*arguments)
        return (loss / 0 if next(steps) == 5 else loss), correct

    monkeypatch.setattr(finetune, "_step", broken)
    recipe = make_recipe(stages=stage(), accumulate=accumulate)
    with pytest.raises(RunInvalid, match=r"the loss became inf in stage s, epoch 2, step 2"):
        run(recipe, photos_root, tmp_path / "run")
    assert read(tmp_path / "run" / "best.pt")["best"]["epoch"] == 1


def test_a_plateau_goes_on_where_a_stopped_run_left_it(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No rate lets the loss fall by half an epoch after epoch: drops come soon, and depend on all losses so far.
    plateau = {"kind": "plateau", "patience": 0, "factor": 0.25}
    recipe = make_recipe(stages=stage(epochs=5, rates={"head": 0.3}, schedule=plateau), accumulate=2)
    run(recipe, photos_root, tmp_path / "whole")
    step, steps = finetune._step, itertools.count()

    def stopped(*arguments: Any) -> Any:
        if next(steps) == 14:  # in the fourth epoch of four batches
            raise KeyboardInterrupt
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, photos_root, tmp_path / "stopped")
    run(recipe, photos_root, tmp_path / "stopped", resume=True)
    whole, resumed = (read(tmp_path / name / "last.pt") for name in ("whole", "stopped"))
    assert [row["rate"] for row in resumed["history"]] == [row["rate"] for row in whole["history"]]
    assert len({row["rate"] for row in whole["history"]}) > 1
    assert all(torch.equal(value, whole["module"][name]) for name, value in resumed["module"].items())


@pytest.mark.parametrize("kind", ["step", "onecycle", "plateau"])
def test_every_schedule_and_an_odd_batch_train_with_mixing(
    make_recipe: Make, photos_root: Path, tmp_path: Path, kind: str
) -> None:
    augmentation = {"size": 32, "policy": "randaugment", "mixup": 0.2, "cutmix": 1.0}
    recipe = make_recipe(
        augmentation=augmentation,
        stages=stage(schedule={"kind": kind}, optimizer={"nesterov": False}),
        batch_size=5,
        accumulate=3,
        class_weights="balanced",
    )
    assert run(recipe, photos_root, tmp_path / "run").status == "finished"


def test_class_weights_are_said_out_loud_and_count(
    make_recipe: Make, photos_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"train": {"folder": "shapes", "most": {"circles": 4}}, "validation": {"share": 0.25, "of": "train"}}
    losses = []
    for weights in ("none", "balanced"):
        recipe = make_recipe(data=data, stages=stage(epochs=1), class_weights=weights)
        run(recipe, photos_root, tmp_path / weights)
        losses.append(read_history(tmp_path / weights / "history.csv")[0].train_loss)
    assert "class weights: circles 2.33, squares 0.778, triangles 0.778" in capsys.readouterr().err
    assert losses[0] != losses[1]
