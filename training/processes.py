"""The processes that share a run, one or those that torchrun started, and what they do together."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from inference.errors import PetalpawError

Value = TypeVar("Value")

_PATIENCE = 5.0
"""Seconds in which a process that broke a connection must be seen to be gone."""


@dataclass(frozen=True)
class Processes:
    """All of them, seen from one; `places` are their machines and process ids by rank."""

    fabric: Fabric
    places: list[tuple[str, int]]

    @classmethod
    def of(cls, fabric: Fabric) -> "Processes":
        """Those that the Fabric has joined."""
        mine = (platform.node(), os.getpid())
        return cls(fabric, [fabric.broadcast(mine, src=rank) for rank in range(fabric.world_size)])

    @property
    def count(self) -> int:
        """How many they are."""
        return self.fabric.world_size

    @property
    def rank(self) -> int:
        """This one's number; 0 is the first, which speaks and writes for all."""
        return self.fabric.global_rank

    def share(self, items: Any) -> Any:
        """This process's part of a sequence or a tensor's rows; the parts in order of rank make the whole."""
        start, end = (rank * len(items) // self.count for rank in (self.rank, self.rank + 1))
        return items[start:end]

    def gather(self, part: Value) -> list[Value]:
        """Everyone's part, in order of rank, in every process."""
        return [self.fabric.broadcast(part, src=rank) for rank in range(self.count)]

    def sum(self, figures: Tensor) -> Tensor:
        """Their sum over the processes, in every process."""
        if self.count == 1:
            return figures
        total = self.fabric.all_reduce(figures, reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    def any(self, flag: bool) -> bool:
        """Whether it is raised in some process."""
        return flag if self.count == 1 else bool(self.sum(torch.tensor(float(flag), device=self.fabric.device)))

    def first(self, work: Callable[[], Value]) -> Value:
        """What work done by the first process gives, or the error that it ends with, in every process."""
        if self.count == 1:
            return work()
        outcome: tuple[Value | None, PetalpawError | OSError | None] = (None, None)
        if self.rank == 0:
            try:
                outcome = work(), None
            except (PetalpawError, OSError) as error:
                outcome = None, error
        result, problem = self.fabric.broadcast(outcome)
        if problem is not None:
            raise problem
        return cast(Value, result)

    def agree(self, module: nn.Module) -> None:
        """Give every process the first one's buffers: batch norm's statistics, which each gathers on its own share."""
        if self.count > 1:
            for name, value in self.fabric.broadcast(dict(module.named_buffers())).items():
                module.get_buffer(name).copy_(value)

    def gone(self) -> list[int]:
        """Ranks of this machine's processes that no longer run, looked for until one is found or patience ends."""
        deadline = time.monotonic() + _PATIENCE
        while self.count > 1 and time.monotonic() < deadline:
            if gone := [rank for rank, (node, pid) in enumerate(self.places) if node == platform.node() and _over(pid)]:
                return gone
            time.sleep(0.1)
        return []


def _over(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return True
    return False
