import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training import finetune
from training.board import TENSORBOARD, Board, add_pictures
from training.finetune import train
from training.history import read_history
from training.recipe import Recipe
from training.steps import STEPS, Step, read_steps


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads from a run's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / TENSORBOARD))
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_the_board_holds_what_the_run_folder_holds(finished: Path, tmp_path: Path) -> None:
    for name in (STEPS, "history.csv", "curves.png"):
        shutil.copy(finished / name, tmp_path / name)
    steps, history = read_steps(tmp_path / STEPS), read_history(tmp_path / "history.csv")
    with Board(tmp_path, history[:2]):
        pass
    with Board(tmp_path, history[:2]) as board:
        board.epoch([step for step in steps if step.epoch == 3], history[2])
    add_pictures(tmp_path)
    told = scalars(tmp_path)
    assert told["step/loss"] == [(step.step, pytest.approx(step.loss)) for step in steps]
    assert told["rate/head"] == [(step.step, pytest.approx(step.head_rate)) for step in steps]
    assert [step for step, _ in told["rate/backbone"]] == [step.step for step in steps if step.epoch > 1]
    ends = [max(step.step for step in steps if step.epoch == row.epoch) for row in history]
    for split in ("train", "validation"):
        for what in ("loss", "accuracy"):
            values = [pytest.approx(getattr(row, f"{split}_{what}")) for row in history]
            assert told[f"{what}/{split}"] == list(zip(ends, values, strict=True))


def test_a_resumed_run_hides_what_was_written_of_an_unfinished_epoch(finished: Path, tmp_path: Path) -> None:
    row = read_history(finished / "history.csv")[0]
    with Board(tmp_path, []) as board:
        board.epoch([Step(1, 1, "head", 9.0, 0.1, None), Step(2, 1, "head", 8.0, 0.1, None)], row)
    with Board(tmp_path, []) as board:  # steps.csv has none: the epoch never counted
        board.epoch([Step(1, 1, "head", 2.0, 0.1, None)], row)
    assert scalars(tmp_path)["step/loss"] == [(1, 2.0)]


def test_training_writes_event_files_only_where_asked_and_goes_on_with_them(
    make_recipe: Callable[..., Recipe], photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, validate = tmp_path / "run", finetune.validate
    recipe = make_recipe(
        stages=[{"name": "s", "epochs": 2, "trains": "head", "rates": {"head": 0.01}, "cached_features": True}]
    )

    def stopped(session: Any, *arguments: Any) -> dict[str, float]:
        if len(session.history) == 1:
            raise finetune.Interrupted
        return validate(session, *arguments)

    monkeypatch.setattr(finetune, "validate", stopped)
    result = train(recipe, photos_root, None, folder, device="cpu", workers=0, tensorboard=True)
    assert result.status == "interrupted"
    monkeypatch.undo()
    train(recipe, photos_root, None, folder, device="cpu", workers=0, resume=True)
    steps = read_steps(folder / STEPS)
    assert len(steps) == 8
    assert [step for step, _ in scalars(folder)["step/loss"]] == [step.step for step in steps]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / TENSORBOARD))
    events.Reload()
    assert {"confusion", "curves", "gradcam", "iterations"} <= set(events.Tags()["images"])
