"""A run that is killed or interrupted goes on, and ends with the weights of one that nobody disturbed."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from inference.errors import RunInvalid
from tests.training.runs import Make, assert_same_run, run, same
from training import assess, finetune, session
from training.backbones import build
from training.checkpoint import read
from training.finetune import train
from training.lock import held
from training.recipe import load_recipe
from training.run import Record

RUN = """
import sys
from pathlib import Path
import torch
from training.finetune import train
from training.recipe import load_recipe
torch.set_num_threads(1)
train(load_recipe(sys.argv[1]), Path(sys.argv[2]), None, Path(sys.argv[3]), device="cpu", workers=0)
"""

HOLD = """
import sys
from pathlib import Path
from training.lock import held
with held(Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(
    content: dict[str, Any],
    recipe_file: Callable[[dict[str, Any]], Path],
    photos_root: Path,
    finished: Path,
    tmp_path: Path,
) -> None:
    path, folder = recipe_file(content), tmp_path / "killed"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", RUN, str(path), str(photos_root), str(folder)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 2 "):
            process.kill()
            break
    process.wait()
    process.stderr.close()
    assert process.returncode == -signal.SIGKILL
    assert len(read(folder / "last.pt")["history"]) >= 2
    assert not (folder / "metrics.json").exists()
    assert (folder / ".pixels").exists()
    result = run(load_recipe(path), photos_root, folder, resume=True)
    assert result.status == "finished"
    assert_same_run(folder, finished)
    assert not (folder / ".pixels").exists()


class Killed(BaseException):
    """Ends a run at once, as a kill would: what `with` blocks clean up is put back by hand."""


@pytest.mark.parametrize(
    ("module", "step"), [(finetune, "open_photos"), (session, "save"), (session, "begin"), (assess, "_draw_batch")]
)
def test_a_run_killed_before_it_began_is_begun_anew_by_the_same_command(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, step: str
) -> None:
    def killed(*arguments: Any) -> None:
        raise Killed

    recipe, folder = make_recipe(stages=[{"name": "s", "epochs": 1, "rates": {"head": 0.01}}]), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(module, step, killed)
        with pytest.raises(Killed):
            run(recipe, photos_root, folder)
    for name in (".pixels", ".training", ".last.pt.part"):
        (folder / name).touch()
    with pytest.raises(RunInvalid, match=r"run\.json is missing; check the path, or train first"):
        run(recipe, photos_root, folder, resume=True)
    monkeypatch.setattr(finetune, "assess", lambda *_: None)  # half of the time goes into pictures of the end
    result = run(recipe, photos_root, folder)
    assert (result.status, result.epochs) == ("finished", 1)


def test_a_run_killed_once_it_began_goes_on_from_its_own_weights(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, folder = make_recipe(stages=[{"name": "s", "epochs": 1, "rates": {"head": 0.01}}]), tmp_path / "run"
    first = build(recipe, classes=3).network.state_dict()
    torch.save(first, tmp_path / "w.pth")
    write = Record.write

    def killed(self: Record, folder: Path) -> None:
        write(self, folder)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Record, "write", killed)
        with pytest.raises(Killed):
            train(recipe, photos_root, tmp_path / "w.pth", folder, device="cpu", workers=0)
    begun = read(folder / "last.pt")["module"]
    assert all(same(begun[f"network.{name}"], value) for name, value in first.items())
    train(recipe, photos_root, tmp_path / "w.pth", tmp_path / "whole", device="cpu", workers=0)
    assert run(recipe, photos_root, folder, resume=True).status == "finished"
    assert_same_run(folder, tmp_path / "whole")


def test_a_run_without_its_checkpoint_is_not_gone_on_with(
    make_recipe: Make, photos_root: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "last.pt").unlink()
    with pytest.raises(RunInvalid, match=r"its last\.pt is missing; train into a new folder"):
        run(make_recipe(), photos_root, tmp_path / "run", resume=True)


def test_two_processes_do_not_share_a_run_folder(make_recipe: Make, photos_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        with pytest.raises(RunInvalid, match="another process works in"):
            run(make_recipe(), photos_root, folder)
        assert not (folder / ".pixels").exists()
        process.kill()
    with held(folder):
        pass
    assert not list(folder.iterdir())


def test_a_signal_to_the_loaders_processes_too_stops_the_run_as_well(
    make_recipe: Make,
    photos_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, steps = finetune._step, itertools.count()

    def interrupted(*arguments: Any) -> Any:
        if next(steps) == 5:  # in the second epoch
            signal.raise_signal(signal.SIGTERM)
            for process in psutil.Process().children(recursive=True):
                process.terminate()
            signal.pause()  # until the loader's end is noticed, which raises in this place
        return step(*arguments)

    monkeypatch.setattr(finetune, "_step", interrupted)
    result = train(make_recipe(), photos_root, None, tmp_path / "run", device="cpu", workers=1)
    assert (result.status, result.epochs) == ("interrupted", 1)
    assert f"--resume {tmp_path / 'run'}" in capsys.readouterr().err


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_a_signal_stops_between_steps_and_the_run_can_go_on(
    make_recipe: Make,
    photos_root: Path,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    signal_name: str,
) -> None:
    step, steps = finetune._step, itertools.count()

    def interrupted(*arguments: Any) -> Any:
        if next(steps) == 5:  # in the second epoch
            signal.raise_signal(signal.Signals[signal_name])
        return step(*arguments)

    usual = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(finetune, "_step", interrupted)
    result = run(make_recipe(), photos_root, tmp_path / "run")
    assert (result.status, result.epochs) == ("interrupted", 1)
    assert f"--resume {tmp_path / 'run'}" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is usual
    monkeypatch.undo()
    assert run(make_recipe(), photos_root, tmp_path / "run", resume=True).status == "finished"
    assert_same_run(tmp_path / "run", finished)
