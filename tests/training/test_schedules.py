import math
import random
from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.optim import lr_scheduler

from training.schedules import rate_factor
from training.sections import Schedule, Stage


def torch_rates(make: Any, steps: int, *losses: float) -> list[float]:
    """What a scheduler of PyTorch sets a rate of 1 to before each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for step in range(steps):
        if step:
            scheduler.step(*losses[step - 1 : step])
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    return rates


def factors(schedule: Schedule, steps: int, per_epoch: int) -> list[float]:
    return [rate_factor(schedule, step, steps, per_epoch) for step in range(steps)]


def test_cosine_with_warm_up() -> None:
    rates = factors(Schedule(warm_up=1.0, final=0.1), 50, 10)
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[30] == pytest.approx(0.55)
    assert rates[49] == pytest.approx(0.1, abs=2e-3)
    assert all(left > right for left, right in pairwise(rates[10:]))


def test_constant() -> None:
    assert factors(Schedule(kind="constant"), 5, 5) == [1.0] * 5


@pytest.mark.parametrize("final", [0.0, 0.2])
def test_cosine_is_pytorchs(final: float) -> None:
    expected = torch_rates(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 40, eta_min=final), 40)
    assert factors(Schedule(final=final), 40, 10) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("every", "factor"), [(10, None), (1, 0.5), (3, 0.9)])
def test_step_is_pytorchs(every: int, factor: float | None) -> None:
    schedule = Schedule(kind="step", every=every, factor=factor)
    expected = torch_rates(lambda optimizer: lr_scheduler.StepLR(optimizer, every, factor or 0.1), 35)
    found = factors(schedule, 35 * 4, 4)
    assert found[::4] == pytest.approx(expected)
    assert found[3::4] == pytest.approx(expected)  # nothing changes within an epoch


@pytest.mark.parametrize(("rise", "steps"), [(0.3, 10), (0.3, 37), (0.3, 1000), (0.05, 37), (0.9, 2), (0.9, 1000)])
def test_one_cycle_is_pytorchs(rise: float, steps: int) -> None:
    expected = torch_rates(
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 1.0, steps, pct_start=rise, cycle_momentum=False), steps
    )
    assert factors(Schedule(kind="onecycle", rise=rise), steps, steps) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rise", [0.3, 0.5, 0.99, 0.01])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_very_few_steps_stays_in_its_bounds(rise: float, steps: int) -> None:
    rates = factors(Schedule(kind="onecycle", rise=rise), steps, 1)
    assert all(1 / 250_000 <= rate <= 1 for rate in rates)


@pytest.mark.parametrize("patience", [0, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_plateau_is_pytorchs(patience: int, seed: int) -> None:
    dice = random.Random(seed)
    losses = [max(1.0 - 0.02 * epoch, 0.6) + dice.gauss(0, 0.02) for epoch in range(60)]
    losses[17] = losses[16] * (1 - 5e-5)  # lower, but not noticeably
    losses[40] = math.nan
    schedule = Schedule(kind="plateau", patience=patience)

    def make(optimizer: Any) -> Any:
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, eps=0.0)

    expected = torch_rates(make, 60, *losses)
    found = [rate_factor(schedule, epoch * 3, 180, 3, losses[:epoch]) for epoch in range(60)]
    assert found == expected
    assert found[-1] < 1.0


def test_warm_up_comes_before_steps_and_plateaus() -> None:
    for kind in ("step", "plateau"):
        schedule = Schedule.model_validate({"kind": kind, "warm_up": 0.5})
        assert factors(schedule, 8, 4) == pytest.approx([1 / 3, 2 / 3, *[1.0] * 6])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "onecycle", "warm_up": 1.0}, "`warm_up` means nothing to onecycle"),
        ({"kind": "cosine", "every": 3}, "`every` means nothing to cosine, only to step"),
        ({"kind": "onecycle", "factor": 0.3}, "only to step, plateau"),
        ({"kind": "step", "patience": 5}, "`patience` means nothing to step"),
        ({"kind": "plateau", "final": 0.1}, "`final` means nothing to plateau"),
        ({"kind": "step", "every": 0}, "greater than or equal to 1"),
        ({"kind": "step", "factor": 1.0}, "less than 1"),
        ({"kind": "onecycle", "rise": 1.0}, "less than 1"),
        ({"kind": "linear"}, "kind"),
    ],
)
def test_keys_of_another_schedule_are_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Stage.model_validate({"name": "s", "epochs": 3, "rates": {"head": 0.1}, "schedule": content})
