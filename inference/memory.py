"""Memory that the C library keeps after it was freed."""

import ctypes
import sys


def trim() -> None:
    """Give freed memory back to the system, where the C library can (glibc): by itself it keeps most of a model."""
    if sys.platform == "linux" and (give_back := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        give_back(0)
