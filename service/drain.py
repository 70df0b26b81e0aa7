"""The end: SIGTERM stops the server without losing a request that it has taken.

    SIGTERM ─→ notice: /readyz answers 503, requests are taken, their answers end the connection
            ─→ closed: nobody is let in (connections are refused, not left waiting), what was taken is finished
            ─→ end, at the latest after `timeout_s`

uvicorn alone closes idle connections on which a request may be arriving, and BentoML's supervisor, which holds the
listening socket too, would leave newcomers waiting on it until the last answer is out.
"""

import asyncio
import logging
import os
import signal
import socket
from types import FrameType

import uvicorn

from inference.errors import NotReady

_LAST_ACCEPT_S = 0.1
"""Between the end of the kernel's queue of connections and the end of listening: for those that are in it."""

_READINESS = ("/readyz", "/v2/health/ready")

_log = logging.getLogger("bentoml.petalpaw")


def running_server() -> uvicorn.Server:
    """The server that runs this process: it handles SIGTERM. Raises RuntimeError where it is not uvicorn's."""
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if isinstance(owner, uvicorn.Server):
        return owner
    raise RuntimeError("the service needs uvicorn around it; start it with `petalpaw serve` or `bentoml serve`")


class Drain:
    """Stops a server in order. `begun` from SIGTERM on."""

    def __init__(self, notice_s: float, timeout_s: float) -> None:
        self.begun = False
        self._notice_s, self._timeout_s = notice_s, timeout_s

    def admit(self, path: str) -> None:
        """Let a request through; only those for readiness are refused. Raises NotReady."""
        if self.begun and path in _READINESS:
            raise NotReady("the service is stopping; ask another instance")

    def attend(self, server: uvicorn.Server) -> None:
        """Take SIGTERM from `server`, which runs in this thread's event loop.

        Further ones change nothing: a service manager may send one to every process, and the supervisor sends another.
        """
        server.config.timeout_graceful_shutdown = max(1, round(self._timeout_s))
        loop = asyncio.get_running_loop()

        def begin(_signal: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._begin, loop, server)

        signal.signal(signal.SIGTERM, begin)

    def _begin(self, loop: asyncio.AbstractEventLoop, server: uvicorn.Server) -> None:
        if self.begun or server.should_exit:
            return
        self.begun = True
        _log.info("stopping: notice for %g s, then up to %g s for requests under way", self._notice_s, self._timeout_s)
        loop.call_later(self._notice_s, self._close, loop, server)

    def _close(self, loop: asyncio.AbstractEventLoop, server: uvicorn.Server) -> None:
        if server.should_exit:
            return  # SIGINT came in between
        for listening in _sockets(server):
            with listening:
                listening.listen(0)
        loop.call_later(_LAST_ACCEPT_S, self._end, server)

    def _end(self, server: uvicorn.Server) -> None:
        for listening in [] if server.should_exit else _sockets(server):
            # Not only close: the supervisor's copy would go on queueing connections that nobody accepts.
            with listening:
                listening.shutdown(socket.SHUT_RDWR)
        for each in server.servers:
            each.close()  # left open until uvicorn comes to it, what is shut down would wake the loop all the time
        server.handle_exit(signal.SIGTERM, None)


def _sockets(server: uvicorn.Server) -> list[socket.socket]:
    """The sockets that `server` listens on, as copies."""
    return [socket.socket(fileno=os.dup(one.fileno())) for each in server.servers for one in each.sockets]
