"""What lies in the model repository, listed in a thread: a volume that hangs must hold up nobody but its listing."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from inference.errors import PetalpawError
from service.loader import Key

_PATIENCE_S = 1.0
"""How long a caller waits for a new listing before it takes the last one."""


class Shelf:
    """The contents of a repository, as of the last look that came back."""

    def __init__(self, contents: Callable[[], list[Key]]) -> None:
        self._contents = contents
        self._thread = ThreadPoolExecutor(1, "shelf")
        self._look: Future[list[Key] | PetalpawError] | None = None
        self._last: list[Key] | PetalpawError = []

    async def look(self) -> None:
        """Look anew, but wait for no more than a second; who comes meanwhile shares the look."""
        if self._look is None:
            self._look = self._thread.submit(self._found)
        look = self._look
        await asyncio.wait([asyncio.wrap_future(look)], timeout=_PATIENCE_S)
        if look.done() and look is self._look:
            self._last, self._look = look.result(), None

    def contents(self) -> list[Key]:
        """What the last look found. Raises what it raised; empty before the first one came back."""
        if isinstance(self._last, PetalpawError):
            raise self._last
        return self._last

    def close(self) -> None:
        """Look no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _found(self) -> list[Key] | PetalpawError:
        try:
            return self._contents()
        except PetalpawError as error:
            return error
