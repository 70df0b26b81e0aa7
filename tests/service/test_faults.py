"""What happens to a running server from outside: the faults of docs/operations.md that are no request.

One server goes through all of them. It may open few files, and write only where the modes of the folders allow it.
"""

import contextlib
import os
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from inference.repository import Repository
from tests.conftest import GREEN
from tests.service.conftest import ADMIN_KEY, Server, start

pytestmark = pytest.mark.skipif(
    shutil.which("setpriv") is None or shutil.which("prlimit") is None, reason="needs setpriv and prlimit"
)

URL = "/classify?model=colours"
JPEG = {"content-type": "image/jpeg"}
ADMIN = {"X-API-Key": ADMIN_KEY}
CLIENTS = 8
FILES = 160
"""Open files that the server may have, of which 64 are for anything but connections."""

AS_A_USER = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
"""So that modes hold for root too."""


@dataclass
class Harmed:
    """A server, and the folders that it reads and writes."""

    server: Server
    home: Path
    models: Path

    def classifies(self, picture: bytes) -> bool:
        """Whether a new connection gets the right answer."""
        with httpx.Client(base_url=self.server.client.base_url, timeout=60, trust_env=False) as own:
            response = own.post(URL, content=picture, headers=JPEG)
        return response.status_code == 200 and response.json()["predictions"][0]["label"] == "green"

    def control(self, verb: str) -> httpx.Response:
        """Load or unload the model."""
        return self.server.client.post(f"/v2/repository/models/colours/{verb}", headers=ADMIN)

    @property
    def worker(self) -> psutil.Process:
        """The process that answers."""
        (only,) = psutil.Process(self.server._process.pid).children()
        return only


@pytest.fixture(scope="module")
def harmed(tmp_path_factory: pytest.TempPathFactory, repository: Repository) -> Iterator[Harmed]:
    home, models = tmp_path_factory.mktemp("bentoml"), tmp_path_factory.mktemp("harmed") / "models"
    shutil.copytree(repository.root, models)
    before = ["prlimit", f"--nofile={FILES}", *(AS_A_USER if os.geteuid() == 0 else [])]
    running = Server(*start(home, before=before, models=models, api_keys=f"admin:{ADMIN_KEY}"))
    running.wait()
    yield Harmed(running, home, models)
    running.stop()
    assert "Traceback" not in running.said(), running.said()


@pytest.fixture(scope="module")
def small(picture: Callable[..., bytes]) -> bytes:
    return picture(GREEN)


@pytest.fixture(scope="module")
def large(picture: Callable[..., bytes]) -> bytes:
    return picture(GREEN, size=(1600, 1200))


@contextlib.contextmanager
def together(work: Callable[[], None], count: int) -> Iterator[None]:
    """`work` in so many threads, waited for."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def test_a_killed_worker_costs_the_requests_under_way_and_comes_back(
    harmed: Harmed, small: bytes, large: bytes
) -> None:
    outcomes: Counter[str] = Counter()
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=harmed.server.client.base_url, timeout=60, trust_env=False) as own:
            while not over.is_set():
                try:
                    outcomes[str(own.post(URL, content=large, headers=JPEG).status_code)] += 1
                except httpx.TransportError as error:
                    outcomes[type(error).__name__] += 1

    with together(ask, CLIENTS):
        while outcomes["200"] < 3:  # by then the others are under way
            time.sleep(0.01)
        killed = harmed.worker
        killed.send_signal(signal.SIGKILL)
        killed_at, before = time.monotonic(), outcomes["200"]
        while outcomes["200"] < before + CLIENTS and time.monotonic() < killed_at + 90:
            time.sleep(0.05)
        print(f"answers again after {time.monotonic() - killed_at:.1f} s; outcomes: {dict(outcomes)}")
        over.set()
    assert harmed.worker.pid != killed.pid
    assert harmed.classifies(small)
    # Those under way are lost, each client's once; who connects meanwhile waits for the next worker.
    assert 1 <= sum(outcomes.values()) - outcomes["200"] <= CLIENTS, outcomes
    assert outcomes["200"] >= before + CLIENTS


def test_a_model_in_use_is_unloaded_after_its_requests(harmed: Harmed, small: bytes, large: bytes) -> None:
    files = [("images", ("a.jpg", large))] * 12
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(base_url=harmed.server.client.base_url, timeout=60, trust_env=False) as own:
            answers.append(own.post(URL, files=files))

    with together(ask, 3):
        time.sleep(0.2)
        assert harmed.control("unload").status_code == 200
        gone = harmed.server.client.post(URL, content=small, headers=JPEG)
        assert (gone.status_code, gone.json()["code"]) == (404, "model_unknown")
    # Who was let in before is answered whole; who came after is told.
    for answer in answers:
        assert answer.status_code in (200, 404)
        assert answer.status_code == 404 or [one["label"] for one in answer.json()["predictions"]] == ["green"] * 12
    assert harmed.control("load").status_code == 200
    assert harmed.classifies(small)


def test_nothing_needs_to_be_written_while_it_serves(harmed: Harmed, small: bytes) -> None:
    roots = (harmed.home, harmed.models)
    folders = [folder for root in roots for folder in (root, *root.rglob("*")) if folder.is_dir()]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert harmed.classifies(small)
        assert harmed.server.client.post(URL, content=b"no picture", headers=JPEG).status_code == 415
        assert harmed.server.client.get("/nothing").status_code == 404
        assert "petalpaw_pictures_total" in harmed.server.client.get("/metrics").text
        assert harmed.control("load").status_code == 200
        assert harmed.server.client.get("/readyz").status_code == 200
    finally:
        for folder in folders:
            folder.chmod(0o700)


def test_connections_never_use_up_the_open_files(harmed: Harmed, small: bytes) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(3 * FILES):
            address = ("127.0.0.1", harmed.server.port)
            connection = stack.enter_context(socket.create_connection(address, timeout=20))
            if number % 10 == 0:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(b"GET /livez HTTP/1.1\r\n")
        assert harmed.worker.num_fds() < FILES
        assert harmed.classifies(small)
        assert harmed.server.client.get("/readyz").status_code == 200
    assert harmed.classifies(small)


def test_a_served_model_outlives_its_files_and_a_reload_is_refused(harmed: Harmed, small: bytes) -> None:
    kept = shutil.copytree(harmed.models, harmed.models.parent / "kept")
    (harmed.models / "colours/1/model.onnx").unlink()
    assert harmed.classifies(small)
    refused = harmed.control("load")
    assert refused.status_code == 503
    assert refused.json()["error"].startswith("digest_mismatch: ")
    shutil.rmtree(harmed.models)
    assert harmed.classifies(small)
    assert harmed.control("load").status_code in (404, 503)
    assert harmed.server.client.get("/readyz").status_code == 200
    shutil.copytree(kept, harmed.models)
    assert harmed.control("load").status_code == 200
    assert harmed.classifies(small)
