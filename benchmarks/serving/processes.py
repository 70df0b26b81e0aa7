"""A contender's processes: when they are ready, what they use, and how they end."""

import os
import random
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress

import httpx
import psutil

READY_S = 60


def free_port() -> int:
    """A loopback port that nobody listens on, nor on the two after it; none that the system gives to clients."""
    while True:
        port = random.randrange(20_000, 32_000, 10)
        try:
            with ExitStack() as probes:
                for offset in range(3):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        return port


def ready(server: subprocess.Popen[bytes], url: str) -> None:
    """Wait for 200 at `url`. Raises AssertionError when the server ends, or is not ready in READY_S seconds."""
    began = time.monotonic()
    while time.monotonic() - began < READY_S:
        assert server.poll() is None, "the server ended"
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5, trust_env=False).status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"not ready after {READY_S} s")


def tree(server: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        parent = psutil.Process(server.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(server: subprocess.Popen[bytes]) -> float:
    total = 0.0
    for process in tree(server):
        times = process.cpu_times()
        total += times.user + times.system
    return total


def memory_mb(server: subprocess.Popen[bytes]) -> float:
    """The proportional set size of all its processes."""
    return sum(process.memory_full_info().pss for process in tree(server)) / 1e6


def stop(server: subprocess.Popen[bytes]) -> None:
    """End it and all that it started."""
    family = tree(server)
    server.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=15)
    for process in alive:
        process.kill()
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
