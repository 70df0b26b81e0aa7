"""Where and in which precision a run computes."""

from collections.abc import Callable

import pytest
import torch

from training.compute import Compute
from training.recipe import Recipe


@pytest.mark.parametrize(
    ("able", "dtype"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_a_cpu_trains_in_bf16_only_with_tiles_for_it(
    make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert Compute.plan("cpu", make_recipe(precision="auto")).dtype == dtype
    assert Compute.plan("cpu", make_recipe(precision="bf16")).dtype == torch.bfloat16


def test_on_a_cpu_a_step_takes_the_memory_of_the_one_before(
    make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    monkeypatch.setattr("inference.memory.keep", lambda: kept.append(True))
    Compute.plan("cpu", make_recipe())
    assert kept == [True]
