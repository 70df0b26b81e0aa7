"""The image beside the same service outside: start, throughput, memory.

    PYTHONPATH=. DOCKER_HOST=… IMAGE=petalpaw:latest .venv/bin/python benchmarks/container.py --rounds 5 --photo dog.jpg

Starts the guarded container (read-only, no capability, 600 MB) and `petalpaw serve` outside in turns; each is timed
from the order to ready, then loaded by 8 clients for some seconds with single photos. Memory is the control group's
peak. Medians, and the ratio within each round, are printed as Markdown. Loopback only; it ends by itself.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.container.conftest import GUARDED, docker, running
from tests.container.load import Load

PEAK = "/sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes"


@contextmanager
def outside() -> Iterator[tuple[str, float]]:
    """The service without a container: its address and the seconds until it was ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "BENTOML_HOME": home, "PETALPAW_DEVICE": "cpu"}
        began = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, "-m", "petalpaw", "serve", "--port", str(port)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not answers(f"http://127.0.0.1:{port}/readyz"):
                time.sleep(0.02)
            yield f"http://127.0.0.1:{port}", time.perf_counter() - began
        finally:
            server.terminate()
            server.wait(30)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=3).status_code == 200
    except httpx.TransportError:
        return False


def loaded(url: str, photos: list[bytes], seconds: float) -> float:
    """Requests per second, after a second to warm up."""
    with Load(f"{url}/classify?model=catdog", photos[0]) as load:
        time.sleep(1)
        before, began = load.answered, time.perf_counter()
        time.sleep(seconds)
        rate = (load.answered - before) / (time.perf_counter() - began)
    assert not load.lost, load.lost
    return rate


def peak_mb(name: str) -> float:
    return int(docker("exec", name, "sh", "-c", f"cat {PEAK} 2>/dev/null").split()[0]) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--photo", type=Path, required=True)
    chosen = parser.parse_args()
    photos = [chosen.photo.read_bytes()]
    rows = []
    for _ in range(chosen.rounds):
        with running(*GUARDED) as container:
            start_inside = container.ready()
            inside = loaded(container.url, photos, chosen.seconds)
            peak = peak_mb(container.name)
            assert not container.state["OOMKilled"]
        with outside() as (url, start_outside):
            rate_outside = loaded(url, photos, chosen.seconds)
        rows.append((start_inside, start_outside, inside, rate_outside, inside / rate_outside, peak))
        sys.stderr.write(json.dumps([round(value, 3) for value in rows[-1]]) + f" load {os.getloadavg()[0]:.1f}\n")
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    print("| | inside | outside | ratio |\n|---|---|---|---|")
    print(f"| order to ready, s | {medians[0]:.2f} | {medians[1]:.2f} | |")
    print(f"| requests per second, 8 clients | {medians[2]:.0f} | {medians[3]:.0f} | {medians[4]:.2f} |")
    print(f"| peak memory under load, MB | {medians[5]:.0f} | | |")


if __name__ == "__main__":
    main()
