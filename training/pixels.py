"""Decoded pictures in one memory-mapped file, shared by every loader process and dropped by the kernel at need."""

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""uint8 (height, width, 3), RGB."""


class PixelStore:
    """Pictures by key, in a file of at most `budget` bytes that lives as long as the `with` block.

    It takes half of what the disk has beyond `spared` bytes, at most. A picture that no longer fits is simply not kept;
    whoever asks for it decodes it again. Written by one process; any process, forked or spawned, may read once writing
    is over.
    """

    def __init__(self, path: Path, budget: int, spared: int = 0) -> None:
        self.path, self.budget, self.spared = path, budget, spared
        self.used = 0
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._map: Pixels | None = None

    def __enter__(self) -> Self:
        self.path.unlink(missing_ok=True)
        self.budget = min(self.budget, (shutil.disk_usage(self.path.parent).free - self.spared) // 2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map = None
        self.path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._places)

    def put(self, key: str, pixels: Pixels) -> None:
        """Keep a picture if the budget and the disk allow."""
        if self.used + pixels.nbytes > self.budget:
            return
        try:
            with self.path.open("ab") as file:
                file.write(pixels.tobytes())
        except OSError:
            # The disk is full all the same: what is kept here makes room for checkpoints, and is decoded when needed.
            self.path.unlink(missing_ok=True)
            self._places.clear()
            self.used = self.budget = 0
            return
        self._places[key] = (self.used, pixels.shape)
        self.used += pixels.nbytes

    def get(self, key: str) -> Pixels | None:
        """The picture, read-only, or None when it was not kept."""
        place = self._places.get(key)
        if place is None:
            return None
        if self._map is None:
            self._map = np.memmap(self.path, np.uint8, "r")
        offset, shape = place
        return self._map[offset : offset + int(np.prod(shape))].reshape(shape)

    def __getstate__(self) -> dict[str, Any]:
        # A spawned process opens the file itself instead of receiving its content.
        return self.__dict__ | {"_map": None}
