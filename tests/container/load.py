"""A steady load of single pictures that tells answered requests from refused and lost ones."""

import threading
from collections import Counter
from types import TracebackType

import httpx


class Load:
    """`clients` threads that each send the next picture as soon as the last one is answered.

    Of every request one outcome is counted: its status; `refused` when no connection could be made, so that nothing
    was sent; or the name of the error when a connection was made and no whole answer came: those are lost.
    """

    def __init__(self, url: str, picture: bytes, clients: int = 8) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url, self._picture = url, picture
        self._headers = {"Content-Type": "image/jpeg"}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(timeout=60)

    @property
    def answered(self) -> int:
        return self.outcomes["200"]

    @property
    def lost(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.outcomes.items() if outcome not in ("200", "refused")}

    def _run(self) -> None:
        # The proxy's certificate is made for the test.
        with httpx.Client(timeout=60, trust_env=False, verify=False, headers=self._headers) as client:
            while not self._over.is_set():
                outcome = self._one(client)
                self.outcomes[outcome] += 1
                if outcome == "refused":
                    self._over.wait(0.05)

    def _one(self, client: httpx.Client) -> str:
        try:
            return str(client.post(self._url, content=self._picture).status_code)
        except httpx.ConnectError:
            return "refused"
        except httpx.TransportError as error:
            return type(error).__name__
