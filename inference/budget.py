"""The CPU that this process may use, shared out once: workers × streams × threads.

A stream decodes a picture and runs the model on it; each uses `threads` threads inside the runtime. Libraries size
their pools to the host, not to the container, so everything that starts threads is told this budget instead.
"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SPARE_STREAMS = 1
"""What keeps a service's cores busy while others of its streams wait for Python's lock, which its event loop holds."""

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class Budget:
    """`cores` may be a fraction (a container's quota); the other three are whole and at least 1."""

    cores: float
    workers: int = 1
    streams: int = 1
    threads: int = 1

    @classmethod
    def plan(
        cls,
        *,
        cores: float | None = None,
        streams: int | None = None,
        threads: int | None = None,
        spare: int = 0,
    ) -> "Budget":
        """Share out `cores` (default: what quotas and affinity allow).

        Parallel streams of one thread each beat one stream of many threads on CPUs (docs/decisions.md), so there are
        as many streams as whole cores unless told otherwise; and where there is more than one, `spare` ones.
        """
        cores = available_cores() if cores is None else cores
        threads = threads or 1
        filled = max(1, math.floor(cores / threads))
        return cls(cores=cores, streams=streams or filled + (spare if filled > 1 else 0), threads=threads)

    def __str__(self) -> str:
        return f"{self.cores:g} cores → {self.workers} worker(s) × {self.streams} stream(s) × {self.threads} thread(s)"


def available_cores(groups: Path = _GROUPS, own: Path = _OWN) -> float:
    """The smallest of the number of cores that this process may run on and the quotas of its control groups.

    `groups` is where they lie (v2 itself, v1 under `cpu`), `own` tells which are this process's. A group's quota holds
    for all that it contains, so those around the own ones count as well: a systemd slice, a pod.
    """
    affinity = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return min([affinity, *_quotas(groups, own)])


def whole_cores() -> int:
    """`available_cores`, rounded down, at least 1: the size of a pool of threads that compute."""
    return max(1, math.floor(available_cores()))


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """Cores granted by each control group that limits them, from this process's own outwards."""
    paths = _paths(own)
    for base, path in ((groups, paths.get("", "/")), (groups / "cpu", paths.get("cpu", "/"))):
        folder = base / path.lstrip("/")
        for each in (folder, *folder.parents):
            yield from _quota(each)
            if each == base:
                break


def _paths(own: Path) -> dict[str, str]:
    """This process's group by controller; v2 has one for all, under the empty name."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return {}
    return {controller: line[2] for line in lines if len(line) == 3 for controller in line[1].split(",")}


def _quota(folder: Path) -> Iterator[float]:
    """Cores granted by one control group: none where it sets no limit, or is none."""
    with suppress(OSError, ValueError):  # v2, without a limit "max"
        limit, period = map(int, (folder / "cpu.max").read_text().split())
        yield limit / period
    with suppress(OSError, ValueError):  # v1, without a limit -1
        limit, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        if limit > 0:
            yield limit / period
