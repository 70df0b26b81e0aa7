"""The image that IMAGE names, run the way docs/operations.md says, with the engine that `docker` speaks to."""

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

IMAGE = os.environ.get("IMAGE", "petalpaw:latest")
BASE_IMAGE = os.environ.get("BASE_IMAGE", "python:3.11-slim-bookworm")
GUARDED = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--memory", "600m"),
)

# The brackets keep the shell from finding itself.
_KILL_WORKER = """
for process in /proc/[0-9]*; do
    if tr '\\0' ' ' < $process/cmdline | grep -q '_bentoml_impl[.]worker'; then kill -9 ${process#/proc/}; exit; fi
done
exit 1
"""


def docker(*arguments: str | Path, check: bool = True) -> str:
    """What a docker command prints, on both of its outputs."""
    done = subprocess.run(
        ["docker", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    if check and done.returncode != 0:
        pytest.fail(done.stdout[-2000:])
    return done.stdout


def inspected(kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker(kind, "inspect", name))[0]
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Container:
    """A container that serves on a free loopback port.

    It is in the host's network unless told otherwise. A published port would be answered by Docker's own proxy, which
    takes connections for a container that is gone and then resets them: that would look like requests lost.
    """

    def __init__(
        self, *options: str | Path, image: str = IMAGE, command: tuple[str, ...] | None = None, port: int | None = None
    ) -> None:
        self.name = f"petalpaw-{secrets.token_hex(4)}"
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        if command is None:
            command = ("serve", "--host", "127.0.0.1")
        network = () if "--network" in options else ("--network", "host")
        self.began = time.monotonic()
        docker(
            "run", "--detach", "--name", self.name, *network, "--env", f"PORT={self.port}", *options, image, *command
        )
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = inspected("container", self.name)["State"]
        return found

    def said(self) -> str:
        return docker("logs", self.name)

    def ready(self, seconds: float = 180) -> float:
        """Wait until the service is ready; the seconds since the container was ordered."""
        while time.monotonic() < self.began + seconds:
            try:
                if self.client.get("/readyz", timeout=3).status_code == 200:
                    return time.monotonic() - self.began
            except httpx.TransportError:
                pass
            assert self.state["Running"], self.said()
            time.sleep(0.02)
        raise AssertionError(f"not ready after {seconds} s: {self.said()}")

    def kill(self, signal: str = "TERM") -> None:
        docker("kill", "--signal", signal, self.name)

    def kill_worker(self) -> None:
        """`kill -9` the process that answers, as the kernel does when memory ends."""
        docker("exec", self.name, "sh", "-c", _KILL_WORKER)

    def ended(self, seconds: float = 90) -> int:
        """Wait for the end; the exit status."""
        done = subprocess.run(["docker", "wait", self.name], capture_output=True, text=True, timeout=seconds)
        return int(done.stdout)

    def remove(self) -> None:
        self.client.close()
        docker("rm", "--force", self.name)


@contextmanager
def running(*options: str | Path, **more: Any) -> Iterator[Container]:
    container = Container(*options, **more)
    try:
        yield container
    finally:
        container.remove()


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """One that is ready, guarded, and left running for the module."""
    with running(*GUARDED) as one:
        one.ready()
        yield one


@pytest.fixture(scope="session")
def refused() -> Callable[..., str]:
    """Starts a container that must refuse to; what it said before it ended with status 3."""

    def start(*options: str | Path, **more: Any) -> str:
        with running(*GUARDED, *options, **more) as one:
            assert one.ended() == 3, one.said()
            said = one.said()
        assert "Traceback" not in said
        print(next(line for line in said.splitlines() if line.startswith("petalpaw")))
        return said

    return start
