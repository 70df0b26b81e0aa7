"""The factor on every learning rate, as a pure function of how far a stage has come: resuming needs no state."""

import math
from collections.abc import Sequence

from training.sections import Schedule

ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 10_000
"""Where one cycle starts, as a share of the top, and where it ends, as a share of its start."""

_NOTICED = 1e-4  # a loss counts as lower when it is lower by this share


def rate_factor(
    schedule: Schedule, step: int, steps: int, steps_per_epoch: int, validation_losses: Sequence[float] = ()
) -> float:
    """The factor on all learning rates at `step` of a stage's `steps`, both of the optimizer.

    A linear warm-up, then, by kind: half a cosine from 1 to `final` (Loshchilov & Hutter 2017, without restarts); 1;
    a drop every so many epochs; one cycle (Smith & Topin 2018), which rises by itself; or a drop whenever the
    stage's `validation_losses`, one per finished epoch, have stopped falling.
    """
    warm = round(schedule.warm_up * steps_per_epoch)
    if step < warm:
        return (step + 1) / (warm + 1)
    match schedule.kind:
        case "cosine":
            return _cosine(1.0, schedule.final, (step - warm) / max(steps - warm, 1))
        case "constant":
            return 1.0
        case "step":
            return schedule.drop ** (step // steps_per_epoch // schedule.every)
        case "onecycle":
            return _one_cycle(schedule.rise, step, steps)
        case "plateau":
            return schedule.drop ** _drops(validation_losses, schedule.patience)


def _cosine(start: float, end: float, done: float) -> float:
    """From `start` to `end` along half a cosine; `done` is 0…1."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _one_cycle(rise: float, step: int, steps: int) -> float:
    """Up to 1 in the share `rise` of the steps, then down, both along a cosine; the momentum stays as it is."""
    top = max(rise * steps - 1, 0.0)
    if step < top:
        return _cosine(ONE_CYCLE_START, 1.0, step / top)
    return _cosine(1.0, ONE_CYCLE_START * ONE_CYCLE_END, (step - top) / ((steps - 1 - top) or 1))


def _drops(losses: Sequence[float], patience: int) -> int:
    """How often more than `patience` epochs in a row brought no lower loss."""
    best, waited, drops = math.inf, 0, 0
    for loss in losses:
        better = loss < best * (1 - _NOTICED)
        best, waited = (loss, 0) if better else (best, waited + 1)
        if waited > patience:
            drops, waited = drops + 1, 0
    return drops
