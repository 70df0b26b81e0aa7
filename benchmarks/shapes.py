"""The service in three shapes: one process, a worker process per core, and a gateway with a predictor behind it.

    .venv/bin/python benchmarks/shapes.py --rounds 5          # on a busy machine, as root: --nice -15

All are up at once and take turns within a round, as does the in-process limit: decoding and inference in as many
threads as cores, without HTTP. wrk asks with 16 clients and shares the cores with the servers. Medians of the rounds
are printed as Markdown. A busy machine deals out its cores unevenly; --nice raises the priority of all that is
measured, alike, and for those seconds only.
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from gate import CLIENTS, ROOT, limit, picture

from contenders import APPS, CONTENDERS, Contender  # isort: skip  # gate names the folder that these are in
from load import Bodies, Load, closed  # isort: skip
from processes import cpu_seconds, free_port, memory_mb, ready, stop, tree  # isort: skip
from report import machine  # isort: skip

CORES = len(os.sched_getaffinity(0))
LIMIT = "in-process limit"
Server = subprocess.Popen[bytes]


def shape(target: str, streams: int) -> Contender:
    """Petalpaw by another target of BentoML, with so many streams per process."""

    def command(python: Path, port: int) -> list[str]:
        return [str(python), "-m", "bentoml", "serve", target, "--host", "127.0.0.1", "--port", str(port)]

    environment = {
        "PYTHONPATH": f"{APPS}{os.pathsep}{ROOT}",
        "PETALPAW_MODELS": str(ROOT / "models"),
        "PETALPAW_STREAMS": str(streams),
    }
    return dataclasses.replace(CONTENDERS["petalpaw"], command=command, environment=environment)


SHAPES = {
    "one process": shape("service.app:Petalpaw", CORES),
    "a worker per core": shape("shape_workers:Petalpaw", 1),
    "gateway and predictor": shape("shape_gateway:Gateway", CORES),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--nice", type=int, default=0)
    arguments = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), arguments.seconds, arguments.nice)
        try:
            trial.start()
            for _ in range(arguments.rounds):
                trial.round()
        finally:
            for server in trial.servers.values():
                stop(server)
    print(f"{machine()} Load average {before:.1f} at the start, {os.getloadavg()[0]:.1f} at the end.\n")
    print(trial.table())


class Trial:
    """The running shapes and what was measured of each: rate, latencies and CPU milliseconds per picture."""

    def __init__(self, folder: Path, seconds: int, nice: int) -> None:
        self.folder, self.seconds, self.nice = folder, seconds, nice
        self.servers: dict[str, Server] = {}
        self.urls: dict[str, str] = {}
        self.loads: dict[str, list[tuple[Load, float]]] = {name: [] for name in SHAPES}
        self.limits: list[float] = []
        self.memory: dict[str, float] = {}
        (folder / "pictures").mkdir()
        drawn = [picture(seed) for seed in range(8)]
        for index, data in enumerate(drawn):
            (folder / "pictures" / f"{index}.jpg").write_bytes(data)
        self.bodies = Bodies(folder / "bodies", [CONTENDERS["petalpaw"].body(data) for data in drawn])

    def start(self) -> None:
        """Start all, see that they agree, and warm them up."""
        answers = set()
        for name, each in SHAPES.items():
            port, home = free_port(), self.folder / name.replace(" ", "-")
            home.mkdir()
            server = each.started(Path(sys.executable), port, home, home / "log", ROOT / "models" / "flowers" / "1")
            self.servers[name], self.urls[name] = server, f"http://127.0.0.1:{port}{each.path}"
            ready(server, f"http://127.0.0.1:{port}{each.ready}")
            asked = (
                httpx.post(self.urls[name], content=body.data, headers=dict(body.headers), timeout=60)
                for body in self.bodies.bodies
            )
            answers.add(tuple(each.label(answer.json()) for answer in asked))
            closed(self.urls[name], self.bodies, CLIENTS, 2)
            self.memory[name] = memory_mb(server)
        assert len(answers) == 1, answers

    def round(self) -> None:
        """Every shape once, and the limit."""
        for name, server in self.servers.items():
            with hurried([psutil.Process(), *tree(server)], self.nice):
                before = cpu_seconds(server)
                load = closed(self.urls[name], self.bodies, CLIENTS, self.seconds)
                spent = cpu_seconds(server) - before
            self.loads[name].append((load, 1000 * spent / max(1.0, load.rate * self.seconds)))
            print(name, load, file=sys.stderr)
        with hurried([psutil.Process()], self.nice):
            self.limits.append(limit(self.folder, self.seconds))

    def table(self) -> str:
        """The medians; a ratio is to the limit."""
        lines = [
            "| shape | images/s | of the limit | rounds | p50 ms | p99 ms | errors | CPU ms per image | memory MB |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        base = statistics.median(self.limits)
        lines.append(f"| {LIMIT} | {base:.1f} | 1.00 | {rounds(self.limits)} | | | | | |")
        for name, measured in self.loads.items():
            loads = [load for load, _ in measured]
            rate, p50, p99 = (statistics.median(getattr(load, key) for load in loads) for key in ("rate", "p50", "p99"))
            work = statistics.median(work for _, work in measured)
            speed = f"{rate:.1f} | {rate / base:.2f} | {rounds([load.rate for load in loads])} | {p50:.0f} | {p99:.0f}"
            errors = sum(load.errors for load in loads)
            lines.append(f"| {name} | {speed} | {errors} | {work:.1f} | {self.memory[name]:.0f} |")
        return "\n".join(lines)


@contextmanager
def hurried(processes: list[psutil.Process], nice: int) -> Iterator[None]:
    """Give processes, and the threads and children that they make meanwhile, another priority for a while."""

    def give(priority: int) -> None:
        for process in processes:
            for thread in process.threads():
                os.setpriority(os.PRIO_PROCESS, thread.id, priority)

    give(nice)
    try:
        yield
    finally:
        give(0)


def rounds(rates: list[float]) -> str:
    return ", ".join(f"{rate:.0f}" for rate in rates)


if __name__ == "__main__":
    main()
