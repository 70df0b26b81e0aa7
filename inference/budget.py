"""The CPU that this process may use, shared out once: workers × streams × threads.

A stream decodes a picture and runs the model on it; each uses `threads` threads inside the runtime. Libraries size
their pools to the host, not to the container, so everything that starts threads is told this budget instead.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")


@dataclass(frozen=True, slots=True)
class Budget:
    """`cores` may be a fraction (a container's quota); the other three are whole and at least 1."""

    cores: float
    workers: int = 1
    streams: int = 1
    threads: int = 1

    @classmethod
    def plan(cls, *, cores: float | None = None, streams: int | None = None, threads: int | None = None) -> "Budget":
        """Share out `cores` (default: what the quota and the affinity allow).

        Parallel streams of one thread each beat one stream of many threads on CPUs (docs/decisions.md), so there are
        as many streams as whole cores unless told otherwise.
        """
        cores = available_cores() if cores is None else cores
        threads = threads or 1
        return cls(cores=cores, streams=streams or max(1, math.floor(cores / threads)), threads=threads)

    def __str__(self) -> str:
        return f"{self.cores:g} cores → {self.workers} worker(s) × {self.streams} stream(s) × {self.threads} thread(s)"


def available_cores(quota_v2: Path = _CGROUP_V2, quota_v1: Path = _CGROUP_V1) -> float:
    """The smaller of the cgroup quota (v2, then v1) and the number of cores this process may run on."""
    affinity = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota = _quota(quota_v2, quota_v1)
    return affinity if quota is None else min(affinity, quota)


def whole_cores() -> int:
    """`available_cores`, rounded down, at least 1: the size of a pool of threads that compute."""
    return max(1, math.floor(available_cores()))


def _quota(quota_v2: Path, quota_v1: Path) -> float | None:
    """Cores granted by the control group; None where there is no limit or no control group."""
    try:
        limit, period = quota_v2.read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit_us = int(quota_v1.read_text())
        period_us = int(quota_v1.with_name("cpu.cfs_period_us").read_text())
        return limit_us / period_us if limit_us > 0 else None
    except (OSError, ValueError):
        return None
