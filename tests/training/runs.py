"""Short runs, and whether two of them are the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training import finetune
from training.checkpoint import read
from training.finetune import train
from training.recipe import Recipe

Make = Callable[..., Recipe]


def run(recipe: Recipe, root: Path, folder: Path, **options: Any) -> finetune.RunResult:
    return train(recipe, root, None, folder, device="cpu", workers=0, **options)


def same(left: Any, right: Any) -> bool:
    """Equal down to the last bit, through nested states."""
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def assert_same_run(left: Path, right: Path) -> None:
    """Weights, average, optimizer and figures are bit for bit the same; times are not compared."""
    for name in ("best.pt", "last.pt"):
        one, two = read(left / name), read(right / name)
        for content in (one, two):
            for row in [*content["history"], content["best"]]:
                for key in ("seconds", "images_per_second", "waiting"):
                    del row[key]
        for key in one:
            assert same(one[key], two[key]), f"{name}: {key}"
    assert (left / "steps.csv").read_bytes() == (right / "steps.csv").read_bytes()
