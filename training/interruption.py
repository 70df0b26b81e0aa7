"""Ctrl-C and SIGTERM as a request that the training loop answers between two steps."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from training.progress import say


class Interrupted(Exception):
    """Raised between two steps after a signal; never leaves `training.finetune`."""


class Interruption:
    """While the `with` block runs, the first SIGINT or SIGTERM is noted; a second one acts as usual.

    Signals reach the main thread only; in another thread the block notes nothing.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
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
        """Raises Interrupted when a signal came."""
        if self.signal is not None:
            raise Interrupted

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 – the signature of a handler
        self.signal = signal.Signals(number).name
        say(f"{self.signal}: stopping after this step; once more to stop at once")
        self._restore()

    def _restore(self) -> None:
        for number, usual in self._usual.items():
            signal.signal(number, usual)
        self._usual.clear()
