import csv
import itertools
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inference.errors import RecipeInvalid, RunInvalid
from tests.training.runs import Make, assert_same_run, run, same
from training import assess, finetune
from training.checkpoint import read
from training.finetune import train
from training.history import read_history


def test_training_works_outside_the_main_thread(make_recipe: Make, photos_root: Path, tmp_path: Path) -> None:
    results: list[finetune.RunResult] = []
    recipe = make_recipe(stages=[{"name": "s", "epochs": 1, "rates": {"head": 0.01}}])
    thread = threading.Thread(target=lambda: results.append(run(recipe, photos_root, tmp_path / "run")))
    thread.start()
    thread.join()
    assert results[0].status == "finished"


def test_a_loss_that_is_no_number_says_where_and_keeps_the_best(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, steps = finetune._step, itertools.count()

    def broken(*arguments: Any) -> tuple[Tensor, Tensor]:
        loss, correct = step(*arguments)
        return (loss * float("nan") if next(steps) == 5 else loss), correct

    monkeypatch.setattr(finetune, "_step", broken)
    with pytest.raises(RunInvalid, match=r"the loss became nan in stage everything, epoch 2, step 2"):
        run(make_recipe(), photos_root, tmp_path / "run")
    assert read(tmp_path / "run" / "best.pt")["best"]["epoch"] == 1


@pytest.mark.parametrize("average", [None, 0.9])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_an_epoch_whose_validation_is_no_number_is_never_kept(
    make_recipe: Make, photos_root: Path, tmp_path: Path, average: float | None, keep: str
) -> None:
    # One step an epoch: its loss is still a number, the weights that it leaves are not.
    fine, ruinous = ({"name": name, "epochs": 1, "rates": {"head": r}} for name, r in (("fine", 0.01), ("wild", 1e30)))
    options: dict[str, Any] = {"batch_size": 24, "average": average, "selection": {"keep": keep}}
    first, second = tmp_path / "first", tmp_path / "second"
    with pytest.raises(RunInvalid, match=r"is no number in stage wild, epoch 1; no weights are kept: lower the learn"):
        run(make_recipe(stages=[ruinous], **options), photos_root, first)
    assert not (first / "best.pt").exists()
    with pytest.raises(RunInvalid, match=r"in stage wild, epoch 2; the weights of epoch 1 are kept in best\.pt: lower"):
        run(make_recipe(stages=[fine, ruinous], **options), photos_root, second)
    kept = read(second / "best.pt")
    assert kept["best"]["epoch"] == 1
    assert all(value.isfinite().all() for value in kept["module"].values())
    assert len(read_history(second / "history.csv")) == 1
    assert assess.assess_again(second, device="cpu").metrics is not None


def test_kept_weights_that_fail_on_other_photos_end_the_run_with_words(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = assess.infer

    def overflowing(module: Any, photos: Any, split: str, compute: Any) -> Any:
        outcome = infer(module, photos, split, compute)
        outcome.logits[0, 0] = float("inf") if split == "test" else 0.0
        return outcome

    monkeypatch.setattr(assess, "infer", overflowing)
    with pytest.raises(RunInvalid, match="are no numbers on test; train again with lower learning rates"):
        run(make_recipe(stages=[{"name": "s", "epochs": 1, "rates": {"head": 0.01}}]), photos_root, tmp_path / "run")


def test_training_learns_the_shapes(make_recipe: Make, photos_root: Path, tmp_path: Path) -> None:
    everything = {"name": "everything", "epochs": 12, "rates": {"head": 0.003}, "optimizer": {"kind": "adamw"}}
    result = run(make_recipe(stages=[everything], average=None), photos_root, tmp_path / "run")
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result.epochs == 12
    # 24 photos at a high rate go up and down from epoch to epoch; chance is 0.33.
    assert min(float(row["train_loss"]) for row in rows) < 0.75 * float(rows[0]["train_loss"])
    assert max(float(row["train_accuracy"]) for row in rows) > 0.7


def test_early_stopping_counts_epochs_without_a_better_one(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.5, 0.6, 0.6, 0.6, 0.7])
    monkeypatch.setattr(
        finetune,
        "validate",
        lambda *_: {"validation_loss": 1.0, "calibrated_loss": 1.0, "validation_accuracy": next(accuracies)},
    )
    stages = [
        {"name": "one", "epochs": 4, "rates": {"head": 0.01}},
        {"name": "two", "epochs": 1, "rates": {"head": 0.01}},
    ]
    recipe = make_recipe(stages=stages, selection={"patience": 2}, batch_size=20)
    result = run(recipe, photos_root, tmp_path / "run")
    assert result.epochs == 5
    assert result.best is not None
    assert (result.best.epoch, result.best.stage) == (5, "two")
    accuracies = iter([0.5, 0.4, 0.3, 0.2])
    result = run(recipe, photos_root, tmp_path / "again")
    # Two epochs of `one` without a better one end that stage, not the run.
    assert result.epochs == 4
    assert result.best is not None
    assert result.best.epoch == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precisions_train_in_their_type(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    seen = set()
    forward = torch.nn.Linear.forward

    def spy(self: torch.nn.Linear, inputs: Tensor) -> Tensor:
        output = forward(self, inputs)
        if self.training:
            seen.add(output.dtype)
        return output

    monkeypatch.setattr(torch.nn.Linear, "forward", spy)
    stages = [{"name": "s", "epochs": 1, "rates": {"head": 0.01}}]
    run(make_recipe(stages=stages, precision=precision, clip_norm=1.0), photos_root, tmp_path / "run")
    assert seen == {torch.float32 if precision == "fp32" else torch.bfloat16}


def test_clipping_bounds_the_gradients(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def spy(parameters: Any, **options: Any) -> Tensor:
        parameters = list(parameters)
        result = clip(parameters, **options)
        norms.append(torch.stack([parameter.grad.norm() for parameter in parameters]).norm().item())
        return result

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    stages = [{"name": "s", "epochs": 1, "rates": {"head": 0.01}}]
    run(make_recipe(stages=stages, clip_norm=0.01), photos_root, tmp_path / "run")
    assert norms
    assert max(norms) == pytest.approx(0.01, rel=1e-3)


def test_mixing_and_every_augmentation_train(make_recipe: Make, photos_root: Path, tmp_path: Path) -> None:
    augmentation = {"size": 32, "policy": "trivialaugment", "erasing": 0.5, "mixup": 0.2, "cutmix": 1.0}
    stages = [{"name": "s", "epochs": 1, "rates": {"head": 0.01}, "frozen_statistics": True}]
    recipe = make_recipe(augmentation=augmentation, stages=stages, selection={"keep": "last", "metric": "loss"})
    assert run(recipe, photos_root, tmp_path / "run").status == "finished"


def test_seeds_make_different_runs(make_recipe: Make, photos_root: Path, finished: Path, tmp_path: Path) -> None:
    run(make_recipe(), photos_root, tmp_path / "same")
    assert_same_run(tmp_path / "same", finished)
    run(make_recipe(label_smoothing=0.0), photos_root, tmp_path / "other")
    other, first = read(tmp_path / "other" / "best.pt"), read(finished / "best.pt")
    assert not same(other["module"], first["module"])


def test_folders_in_use_and_other_recipes(make_recipe: Make, photos_root: Path, finished: Path) -> None:
    with pytest.raises(RunInvalid, match="is not empty"):
        run(make_recipe(), photos_root, finished)
    with pytest.raises(RunInvalid, match="was begun with another recipe"):
        run(make_recipe(batch_size=5), photos_root, finished, resume=True)


def test_missing_weights_are_refused_before_any_photo_is_touched(make_recipe: Make, tmp_path: Path) -> None:
    for name in ("absent.pth", "recipe.yaml"):  # the latter holds no weights
        with pytest.raises(RunInvalid, match=name):
            train(make_recipe(), tmp_path / "no photos", tmp_path / name, tmp_path / "run", device="cpu", workers=0)


def test_half_precision_is_for_gpus(make_recipe: Make, photos_root: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeInvalid, match="fp16 trains on CUDA only"):
        run(make_recipe(precision="fp16"), photos_root, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["auto", "fp16"])
def test_training_on_a_gpu(make_recipe: Make, photos_root: Path, tmp_path: Path, precision: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    recipe = make_recipe(precision=precision, clip_norm=1.0)
    result = train(recipe, photos_root, None, tmp_path / "run", device="cuda", workers=1)
    assert result.status == "finished"


def test_progress_without_a_terminal_is_lines(
    make_recipe: Make, photos_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [{"name": "s", "epochs": 1, "rates": {"head": 0.01}}]
    began = time.perf_counter()
    run(make_recipe(stages=stages), photos_root, tmp_path / "run")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "waiting for data" in captured.err
    assert "\x1b" not in captured.err
    assert time.perf_counter() - began < 60
