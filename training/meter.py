"""What an epoch's loop counts: losses, right answers, and the time spent waiting for data."""

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from inference.errors import RunInvalid
from training.checkpoint import BEST
from training.dataset import Batch

_LOOK_EVERY = 10  # steps between two looks at the losses: each look waits for the device


def diverged(what: str, kept: int | None) -> RunInvalid:
    """The end of a run whose figures are no longer numbers; `kept` is the epoch whose weights were kept, if any."""
    weights = "no weights are kept" if kept is None else f"the weights of epoch {kept} are kept in {BEST}"
    return RunInvalid(
        f"{what}; {weights}: lower the learning rates, add warm-up or clip_norm, or train in fp32, in a new run folder"
    )


class Totals:
    """Sums over an epoch, kept on the device and looked at now and then; a loss that is no number ends the run."""

    def __init__(self, where: str, kept: int | None = None, total: Callable[[Tensor], Tensor] = Tensor.detach) -> None:
        self.where, self.kept, self.last = where, kept, math.nan
        self._total = total  # over the processes that share a step
        self._waiting: list[Tensor] = []
        self._correct: list[Tensor] = []
        self._losses: list[float] = []
        self._count, self._correct_sum = 0, 0

    def add(self, loss: Tensor, correct: Tensor, count: int) -> None:
        """One step's mean loss and right answers, or this process's part of them, and the photos of all.

        Raises RunInvalid for a loss that is no number.
        """
        self._waiting.append(loss)
        self._correct.append(correct)
        self._count += count
        if len(self._waiting) == _LOOK_EVERY:
            self._look()

    @property
    def note(self) -> str:
        """The last loss looked at, to be shown while the epoch runs."""
        return "" if math.isnan(self.last) else f"loss {self.last:.3f}"

    @property
    def losses(self) -> list[float]:
        """Every step's mean loss, in order."""
        self._look()
        return self._losses

    @property
    def loss(self) -> float:
        """Mean over steps."""
        return sum(self.losses) / len(self.losses)

    @property
    def accuracy(self) -> float:
        """Share of right answers, on augmented photos and while the weights moved."""
        self._look()
        return self._correct_sum / self._count

    def _look(self) -> None:
        for loss in self._total(torch.stack(self._waiting)).tolist() if self._waiting else ():
            self._losses.append(loss)
            self.last = loss
            if not math.isfinite(loss):
                raise diverged(f"the loss became {loss} in {self.where}, step {len(self._losses)}", self.kept)
        self._correct_sum += int(self._total(torch.stack(self._correct).sum())) if self._correct else 0
        self._waiting.clear()
        self._correct.clear()


class Watch:
    """Time of an epoch, and how much of it the loop stood waiting for the next batch."""

    def __init__(self) -> None:
        self.waited, self._started = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the watch was made."""
        return time.perf_counter() - self._started

    def over(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, timed while they are fetched."""
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch
