"""The real server: `bentoml serve` on a free loopback port."""

import hashlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from inference.repository import Repository
from service.launch import TARGET, serve_command
from tests.conftest import BLUE, GREEN, RED, colour_artifact
from tests.service.catalogs import ENGLISH, Labels, Publish

ROOT = Path(__file__).parents[2]
MAX_BODY = 4 * 1024 * 1024
MAX_IMAGES = 24
MAX_PIXELS = 50_000_000


def environment(home: Path, **settings: object) -> dict[str, str]:
    """What a process of BentoML needs, and nothing of the caller's; `settings` by their names."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PETALPAW_", "BENTOML_"))}
    return {
        **inherited,
        **{f"PETALPAW_{name.upper()}": str(value) for name, value in settings.items()},
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
    }


def start(
    home: Path, target: str | None = None, folder: Path = ROOT, before: Sequence[str] = (), **settings: object
) -> tuple[subprocess.Popen[bytes], int, Path]:
    """A server with its port and log, of the source or of a built Bento; `before` is what starts it in `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [*before, *serve_command("127.0.0.1", port)]
    if target is not None:
        command[command.index(TARGET)] = target
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(home, **settings), stdout=output, stderr=subprocess.STDOUT
        )
    return process, port, log


def is_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an answer that must be this problem."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code), body
    assert body["type"] == f"urn:petalpaw:problem:{code}"
    assert body["title"]
    assert body["detail"]
    return body


class Server:
    """A running server: its client, its port, and all that it has said."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.port = port
        self._process, self._log = process, log
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    def said(self) -> str:
        return self._log.read_text()

    def peak_memory(self) -> int:
        """The most memory that any process of the server has held so far, in bytes."""
        tree = [self._process.pid, *(child.pid for child in psutil.Process(self._process.pid).children(recursive=True))]
        lines = [line for pid in tree for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return max(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    def cpu_seconds(self) -> float:
        """What all processes of the server have computed so far."""
        parent = psutil.Process(self._process.pid)
        times = [process.cpu_times() for process in (parent, *parent.children(recursive=True))]
        return sum(each.user + each.system for each in times)

    def wait(self) -> None:
        for _ in range(600):
            assert self._process.poll() is None, self.said()
            try:
                if self.client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(self.said())

    def stop(self) -> None:
        self.client.close()
        self._process.terminate()
        assert self._process.wait(timeout=30) == 0, self.said()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, repository: Repository) -> Iterator[Server]:
    """Serves `colours` and `tones` with small limits. No test may make it log a traceback."""
    # On a busy machine the queue may be long without a test that is about it.
    settings = {"max_body_bytes": MAX_BODY, "max_images": MAX_IMAGES, "max_pixels": MAX_PIXELS, "max_queue_s": 60}
    running = Server(*start(tmp_path_factory.mktemp("bentoml"), models=repository.root, **settings))
    running.wait()
    yield running
    running.stop()
    assert "Traceback" not in running.said(), running.said()


PREDICT_KEY, ADMIN_KEY, FILED_KEY = "predict-key-of-the-tests", "admin-key-of-the-tests", "key-from-a-mounted-file"
ORIGIN = "https://pictures.example"
MAX_CONNECTIONS = 24


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory, repository: Repository) -> Iterator[Server]:
    """Serves `colours` and `tones` with keys, one origin, and small limits on connections and heads."""
    home = tmp_path_factory.mktemp("bentoml")
    filed = home / "keys"
    digest = hashlib.sha256(FILED_KEY.encode()).hexdigest()
    filed.write_text(f"# for the batch jobs\npredict:sha256:{digest}\n")
    settings = {
        "api_keys": f"predict:{PREDICT_KEY},admin:{ADMIN_KEY}",
        "api_keys_file": filed,
        "cors_origins": ORIGIN,
        "open_metrics": False,
        "max_connections": MAX_CONNECTIONS,
        "max_header_bytes": 4096,
        "header_timeout_s": 1,
        "keep_alive_s": 3,
        "max_uploads_bytes": 3 * MAX_BODY,
        "max_body_bytes": MAX_BODY,
    }
    running = Server(*start(home, models=repository.root, **settings))
    running.wait()
    yield running
    running.stop()
    said = running.said()
    assert "Traceback" not in said, said
    assert not any(key in said for key in (PREDICT_KEY, ADMIN_KEY, FILED_KEY, digest))


@pytest.fixture(scope="session")
def client(server: Server) -> httpx.Client:
    return server.client


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    """Publish a further version of `colours` in tmp_path/models; its labels tell versions apart."""

    def published(labels: Labels = ENGLISH, name: str = "colours") -> str:
        source = colour_artifact(tmp_path / "exported", name, labels)
        return Repository(tmp_path / "models").publish(source).version

    return published


@pytest.fixture
def probes(tmp_path: Path, picture: Callable[..., bytes]) -> Path:
    """Four photos to compare versions of `colours` on."""
    folder = tmp_path / "probes"
    (folder / "colours").mkdir(parents=True)
    for number, colour in enumerate((RED, GREEN, BLUE, RED)):
        (folder / "colours" / f"{number}.jpg").write_bytes(picture(colour, seed=number))
    return folder
