"""SIGTERM under load: what was taken is answered, and nobody else is left waiting."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import uvicorn
import uvloop
from starlette.applications import Starlette

from inference.repository import Repository
from service.drain import Drain
from tests.conftest import GREEN
from tests.service.conftest import Server, start

CLIENTS = 8
URL = "/classify?model=colours"
JPEG = {"content-type": "image/jpeg"}


class Load:
    """Clients that ask again and again, each on its own connection, until nobody listens any longer."""

    def __init__(self, url: httpx.URL, body: bytes) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url, self._body = url, body
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as own:
            while not self.outcomes["ConnectError"]:
                try:
                    outcome = str(own.post(URL, content=self._body, headers=JPEG).status_code)
                except httpx.TransportError as error:
                    outcome = type(error).__name__
                self.outcomes[outcome] += 1

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def test_sigterm_under_load_loses_no_request(
    tmp_path: Path, repository: Repository, picture: Callable[..., bytes]
) -> None:
    running = Server(*start(tmp_path, models=repository.root, drain_notice_s=1, drain_timeout_s=10))
    running.wait()
    load = Load(running.client.base_url, picture(GREEN, size=(1600, 1200)))
    time.sleep(1)
    assert running.client.get("/readyz").status_code == 200
    before = load.outcomes["200"]
    stopping = threading.Thread(target=running.stop)  # SIGTERM, and an exit status of 0
    stopping.start()
    begun = time.monotonic()
    # A service manager may send it to every process, before the supervisor does.
    for process in psutil.Process(running._process.pid).children():
        process.terminate()
    noticed = []
    while time.monotonic() - begun < 0.8:
        with httpx.Client(base_url=load._url, timeout=60, trust_env=False) as probe:
            response = probe.get("/readyz")
            assert response.headers["connection"] == "close" or response.status_code == 200
            noticed.append(response.status_code)
        time.sleep(0.05)
    load.join()
    stopping.join()
    assert noticed[-1] == 503
    assert time.monotonic() - begun < 15
    # Refused connections are the end of the load; everything that was connected was answered.
    assert set(load.outcomes) == {"200", "ConnectError"}, load.outcomes
    assert load.outcomes["200"] > before
    assert "Traceback" not in running.said()


def test_the_end_of_listening_leaves_the_loop_in_peace() -> None:
    """A socket that is shut down and still watched is always ready: the loop would spin until uvicorn closes it."""
    busy = []

    async def stop() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server = uvicorn.Server(uvicorn.Config(Starlette(), lifespan="off", log_config=None))
            serving = asyncio.create_task(server.serve([listening]))
            while not server.started:
                await asyncio.sleep(0.01)
            server.handle_exit = lambda *_: None  # type: ignore[method-assign]
            Drain(0, 1)._end(server)
            before = time.thread_time()
            await asyncio.sleep(0.5)
            busy.append(time.thread_time() - before)
            server.should_exit = True
            await serving

    # Outside the main thread uvicorn takes no signals.
    thread = threading.Thread(target=asyncio.Runner(loop_factory=uvloop.new_event_loop).run, args=[stop()])
    thread.start()
    thread.join()
    assert busy[0] < 0.1
