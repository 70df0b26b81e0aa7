"""Memory: what the control group grants and has taken by force, and what the C library keeps after it was freed."""

import contextlib
import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_EVENTS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))
_UNLIMITED = 1 << 60


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
