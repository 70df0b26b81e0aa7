"""Memory: what the control group grants and has taken by force, and what the C library does with freed blocks."""

import contextlib
import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_EVENTS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))
_UNLIMITED = 1 << 60
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt (malloc.h)."""


def limit(paths: Sequence[Path] = _LIMITS) -> int | None:
    """The bytes that this container may use (control groups v2, then v1); None where nothing limits them."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # v2 says "max"
            granted = int(path.read_text())
            return granted if granted < _UNLIMITED else None
    return None


def kills(paths: Sequence[Path] = _EVENTS) -> int:
    """How many processes of this container the system has ended for lack of memory."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            counts = dict(line.split() for line in path.read_text().splitlines())
            return int(counts.get("oom_kill", 0))
    return 0


def trim() -> None:
    """Give freed memory back to the system, where the C library can (glibc): by itself it keeps most of a model."""
    if sys.platform == "linux" and (give_back := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        give_back(0)


def keep() -> None:
    """Have the C library (glibc) keep what is freed, for what is allocated next, whatever its size.

    By itself it takes every large block fresh from the system and gives it back at once. The kernel zeroes its pages
    anew each time, a third of a training step on two threads. Peaks grow, by a fifth where measured.
    """
    if sys.platform == "linux" and (option := getattr(ctypes.CDLL(None), "mallopt", None)):
        option(_MMAP_MAX, 0)
        option(_TRIM_THRESHOLD, -1)  # as its unsigned value: never
