"""Two processes under torchrun on one CPU, joined by gloo: real processes, a small network, few photos."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from training.checkpoint import read
from training.finetune import train
from training.history import read_history
from training.processes import Processes
from training.recipe import load_recipe

ROOT = Path(__file__).parents[2]
LIMIT = 240.0

RecipeFile = Callable[[dict[str, Any]], Path]


@contextmanager
def torchrun(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """`petalpaw train` in two processes; they are ended with the block."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]
    command += [ROOT / "petalpaw.py", "train", *arguments, "--device", "cpu", "--workers", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            yield run
        finally:
            run.terminate()


def said(run: subprocess.Popen[str]) -> str:
    """All that is left on stderr."""
    return run.communicate(timeout=LIMIT)[1]


def wait_for(run: subprocess.Popen[str], beginning: str) -> None:
    assert run.stderr is not None
    lines = []
    for line in run.stderr:
        if line.startswith(beginning):
            return
        lines.append(line)
    raise AssertionError("".join(lines))


def pid_of(run: subprocess.Popen[str], rank: int) -> int:
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    wanted = f"\0RANK={rank}\0".encode()
    return next(int(pid) for pid in children if wanted in Path(f"/proc/{pid}/environ").read_bytes())


@pytest.fixture
def steady(content: dict[str, Any]) -> dict[str, Any]:
    """A recipe with nothing that differs between shares of a batch: no dropout, no statistics that move."""
    stage = {"epochs": 1, "rates": {"head": 0.002}, "optimizer": {"kind": "adamw"}, "frozen_statistics": True}
    stages = [{"name": "head", "trains": "head", "cached_features": True} | stage, {"name": "everything"} | stage]
    backbone = {"name": "resnet18", "weights": "none"}
    # 7 photos are shared out unevenly.
    return content | {"backbone": backbone, "stages": stages, "batch_size": 7, "clip_norm": 5.0, "precision": "fp32"}


def test_two_processes_train_as_one_does(
    steady: dict[str, Any], recipe_file: RecipeFile, photos_root: Path, tmp_path: Path
) -> None:
    path, one, two = recipe_file(steady), tmp_path / "one", tmp_path / "two"
    with torchrun(path, "--data", photos_root, "--run", two) as run:
        output, errors = run.communicate(timeout=LIMIT)
    assert run.returncode == 0, errors
    assert output == f"{two}\n"
    assert errors.count("epoch 2 (everything)") == 1
    assert "on 2 processes, cpu" in errors
    train(load_recipe(path), photos_root, None, one, device="cpu", workers=0)
    for single, shared in zip(*(read_history(folder / "history.csv") for folder in (one, two)), strict=True):
        for figure in ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy", "rate"):
            assert getattr(shared, figure) == pytest.approx(getattr(single, figure), abs=1e-3), figure
    single, shared = (read(folder / "last.pt") for folder in (one, two))
    moved = 0.0
    for name, value in single["module"].items():
        torch.testing.assert_close(shared["module"][name], value, atol=1e-3, rtol=1e-2)
        moved += float((value.float() - single["average"][name].float()).abs().sum())
    assert moved > 0
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}


def test_a_killed_process_ends_the_run_with_words_and_one_process_finishes_it(
    steady: dict[str, Any], recipe_file: RecipeFile, photos_root: Path, tmp_path: Path
) -> None:
    steady["stages"] = [steady["stages"][1] | {"epochs": 8}]
    folder = tmp_path / "run"
    with torchrun(recipe_file(steady), "--data", photos_root, "--run", folder) as run:
        wait_for(run, "epoch 1 ")
        os.kill(pid_of(run, rank=1), signal.SIGKILL)
        errors = said(run)
    assert run.returncode != 0
    assert errors.count("process 1 of 2 died; epoch ") == 1
    assert f"to go on, train with --resume {folder}" in errors
    epochs = len(read(folder / "last.pt")["history"])
    assert 1 <= epochs < 8
    recipe = load_recipe(folder / "recipe.resolved.yaml")
    result = train(recipe, photos_root, None, folder, resume=True, device="cpu", workers=0)
    assert (result.status, result.epochs) == ("finished", 8)


def test_sigterm_to_torchrun_stops_all_after_a_step(
    steady: dict[str, Any], recipe_file: RecipeFile, photos_root: Path, tmp_path: Path
) -> None:
    steady["stages"] = [steady["stages"][1] | {"epochs": 50}]
    with torchrun(recipe_file(steady), "--data", photos_root, "--run", tmp_path / "run") as run:
        wait_for(run, "epoch 1 ")
        run.send_signal(signal.SIGTERM)
        errors = said(run)
    assert errors.count("stopped; epoch ") == 1
    assert "died" not in errors
    assert 1 <= len(read(tmp_path / "run" / "last.pt")["history"]) < 50


def test_what_the_first_process_refuses_ends_all_with_one_message(
    steady: dict[str, Any], recipe_file: RecipeFile, photos_root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "occupied"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with torchrun(recipe_file(steady), "--data", photos_root, "--run", folder) as run:
        errors = said(run)
    assert run.returncode != 0
    assert errors.count("is not empty; choose a new run folder") == 1
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    assert "exitcode  : 3" in errors


def test_processes_agree_on_the_first_ones_statistics() -> None:
    module = nn.BatchNorm1d(2)
    first = {"running_mean": torch.tensor([1.0, 2.0]), "num_batches_tracked": torch.tensor(7)}
    fabric: Any = SimpleNamespace(world_size=2, broadcast=lambda found: found | first)
    Processes(fabric, []).agree(module)
    assert torch.equal(module.get_buffer("running_mean"), first["running_mean"])
    assert int(module.get_buffer("num_batches_tracked")) == 7
