"""How many do something at once."""

import threading


class Gauge:
    """How many are inside at once, and at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.highest = 0

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.highest = max(self.highest, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1
