"""Ctrl-C and SIGTERM as a request that the training loop answers between two steps."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from training.processes import Processes
from training.progress import say


class Interrupted(Exception):
    """Raised between two steps after a signal; never leaves `training.finetune`."""


class Interruption:
    """While the `with` block runs, the first SIGINT or SIGTERM is noted; a second one acts as usual.

    Signals reach the main thread only; in another thread the block notes nothing. Several processes stop after the
    same step; their further signals change nothing, for torchrun ends those that take too long.
    """

    def __init__(self, processes: Processes | None = None) -> None:
        self.signal: str | None = None
        self._several = processes if processes and processes.count > 1 else None
        self._usual: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._usual[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def check(self) -> None:
        """Raises Interrupted when a signal came, to any process: all must ask, or none."""
        came = self.signal is not None
        if self._several.any(came) if self._several else came:
            raise Interrupted

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 – the signature of a handler
        self.signal = signal.Signals(number).name
        if self._several is None:
            say(f"{self.signal}: stopping after this step; once more to stop at once")
            self._restore()

    def _restore(self) -> None:
        for number, usual in self._usual.items():
            signal.signal(number, usual)
        self._usual.clear()
