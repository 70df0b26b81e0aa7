"""The image beside the same service outside: start, throughput, CPU time, memory.

    PYTHONPATH=. DOCKER_HOST=… IMAGE=petalpaw:latest .venv/bin/python benchmarks/container.py --rounds 5 --photo dog.jpg

Starts the guarded container (read-only, no capability, 600 MB) and `petalpaw serve` outside in turns, the latter with
`--python`, which should be that of an environment with no more than requirements/serve.txt. Each is timed from the
order to ready, then loaded by some clients for some seconds with one photo. CPU time is that of all the service's
processes, which other work on the machine disturbs least; memory is the control group's peak. Medians, and the ratio
within each round, are printed as Markdown. Loopback only; it ends by itself.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import httpx
import psutil

from tests.container.conftest import GUARDED, docker, free_port, running
from tests.container.load import Load


@dataclass(frozen=True)
class Round:
    ready_s: float
    ready_cpu_s: float
    requests_per_s: float
    cpu_ms_per_request: float


@contextmanager
def outside(python: Path) -> Iterator[tuple[str, float, int]]:
    """The service without a container: its address, the seconds until it was ready, its process."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "BENTOML_HOME": home, "PETALPAW_DEVICE": "cpu"}
        began = time.perf_counter()
        command = [str(python), "-m", "petalpaw", "serve", "--port", str(port)]
        server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        try:
            while not ready(f"http://127.0.0.1:{port}"):
                time.sleep(0.02)
            yield f"http://127.0.0.1:{port}", time.perf_counter() - began, server.pid
        finally:
            server.terminate()
            server.wait(60)


@contextmanager
def inside() -> Iterator[tuple[str, float, int, str]]:
    """The same of the guarded container, and its name."""
    with running(*GUARDED) as container:
        yield container.url, container.ready(), container.state["Pid"], container.name
        assert not container.state["OOMKilled"]


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False, timeout=3).status_code == 200
    except httpx.TransportError:
        return False


def peak_mb(name: str) -> float:
    """The most memory that a container has held: control groups v2, then v1."""
    paths = "/sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes"
    return int(docker("exec", name, "sh", "-c", f"cat {paths} 2>/dev/null || true").split()[0]) / 1e6


def cpu_s(process: int) -> float:
    """Seconds of CPU that a process and its children have used so far, health checks of the engine not among them."""
    root = psutil.Process(process)
    return sum(sum(each.cpu_times()[:2]) for each in (root, *root.children(recursive=True)))


def loaded(url: str, ready_s: float, process: int, photo: bytes, seconds: float, clients: int) -> Round:
    """A second to warm up, then the load that is measured."""
    ready_cpu = cpu_s(process)
    with Load(f"{url}/classify?model=catdog", photo, clients) as load:
        time.sleep(1)
        before, cpu, began = load.answered, cpu_s(process), time.perf_counter()
        time.sleep(seconds)
        answered, cpu, took = load.answered - before, cpu_s(process) - cpu, time.perf_counter() - began
    assert not load.lost, load.lost
    return Round(ready_s, ready_cpu, answered / took, 1000 * cpu / answered)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--photo", type=Path, required=True)
    chosen = parser.parse_args()
    photo = chosen.photo.read_bytes()
    within, without, peaks = [], [], []
    for _ in range(chosen.rounds):
        with inside() as (url, ready_s, process, name):
            within.append(loaded(url, ready_s, process, photo, chosen.seconds, chosen.clients))
            peaks.append(peak_mb(name))
        with outside(chosen.python) as (url, ready_s, process):
            without.append(loaded(url, ready_s, process, photo, chosen.seconds, chosen.clients))
        sys.stderr.write(f"{within[-1]} {without[-1]} load {os.getloadavg()[0]:.1f}\n")
    print("| | inside | outside | inside / outside |\n|---|---|---|---|")
    rows = (
        "order to ready, s",
        "CPU until ready, s",
        f"requests per second, {chosen.clients} clients",
        "CPU per request, ms",
    )
    for row, ins, outs in zip(
        rows, zip(*map(astuple, within), strict=True), zip(*map(astuple, without), strict=True), strict=True
    ):
        ratio = statistics.median(one / other for one, other in zip(ins, outs, strict=True))
        print(f"| {row} | {statistics.median(ins):.2f} | {statistics.median(outs):.2f} | {ratio:.2f} |")
    print(f"| peak memory, MB | {statistics.median(peaks):.0f} | | |")


if __name__ == "__main__":
    main()
