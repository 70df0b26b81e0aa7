"""Checkouts of the service beside each other: did a change of the request's way help?

    .venv/bin/python benchmarks/trees.py --photos photos/ before=../before after=. wide=.,PETALPAW_STREAMS=4

NAME=FOLDER[,SETTING=VALUE…]: a checkout, and settings for its server. All servers are up at once and take turns within
a round, as does the in-process limit; wrk asks with so many clients. Medians of the rounds are printed as Markdown.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import gate  # names the folder that the following are in

from contenders import CONTENDERS  # isort: skip
from load import Bodies, Load, closed  # isort: skip
from photos import KINDS, pictures  # isort: skip
from processes import cpu_seconds, free_port, ready, stop  # isort: skip

COUNT = 24


def started(folder: Path, settings: list[str], port: int, log: Path) -> subprocess.Popen[bytes]:
    """The server of one checkout."""
    environment = {**os.environ, "PYTHONPATH": str(folder), **dict(each.split("=", 1) for each in settings)}
    command = [sys.executable, "-m", "petalpaw", "serve", "--port", str(port)]
    with log.open("wb") as lines:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=lines, stderr=lines, start_new_session=True
        )


def limit(photos: Path, seconds: float) -> float:
    """Pictures a second without HTTP."""
    command = [sys.executable, str(gate.ROOT / "benchmarks/serving/limit.py"), str(gate.ROOT / "models"), "flowers"]
    done = subprocess.run(
        [*command, str(seconds), str(len(os.sched_getaffinity(0))), str(photos)],
        env={**os.environ, "PYTHONPATH": str(gate.ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(json.loads(done.stdout)["rate"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--clients", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        found = pictures(arguments.photos, KINDS["photos"], COUNT)
        (work / "photos").mkdir()
        for index, data in enumerate(found):
            (work / "photos" / f"{index}.jpg").write_bytes(data)
        bodies = Bodies(work / "bodies", [CONTENDERS["petalpaw"].body(data) for data in found])
        servers: dict[str, tuple[subprocess.Popen[bytes], str]] = {}
        limits: list[float] = []
        loads: dict[str, list[tuple[Load, float]]] = {}
        try:
            for tree in arguments.trees:
                name, _, rest = tree.partition("=")
                folder, *settings = rest.split(",")
                port = free_port()
                server = started(Path(folder).resolve(), settings, port, work / f"{name}.log")
                servers[name] = server, f"http://127.0.0.1:{port}/classify?model=flowers"
                ready(server, f"http://127.0.0.1:{port}/readyz")
                closed(servers[name][1], bodies, arguments.clients, 2)
            for _ in range(arguments.rounds):
                limits.append(limit(work / "photos", arguments.seconds))
                for name, (server, url) in servers.items():
                    before = cpu_seconds(server)
                    load = closed(url, bodies, arguments.clients, arguments.seconds)
                    cost = 1e3 * (cpu_seconds(server) - before) / (load.rate * arguments.seconds)
                    loads.setdefault(name, []).append((load, cost))
        finally:
            for server, _ in servers.values():
                stop(server)
    most = statistics.median(limits)
    print(f"limit {most:.1f} images/s, rounds {', '.join(f'{each:.0f}' for each in limits)}\n")
    print("| | images/s | of the limit | rounds | p50 ms | p99 ms | CPU ms per picture | errors |")
    print("|---|---|---|---|---|---|---|---|")
    for name, seen in loads.items():
        rate, p50, p99 = (statistics.median(getattr(load, each) for load, _ in seen) for each in ("rate", "p50", "p99"))
        rounds = ", ".join(f"{load.rate:.0f}" for load, _ in seen)
        cost, errors = statistics.median(cost for _, cost in seen), sum(load.errors for load, _ in seen)
        print(f"| {name} | {rate:.1f} | {rate / most:.2f} | {rounds} | {p50:.0f} | {p99:.0f} | {cost:.2f} | {errors} |")


if __name__ == "__main__":
    main()
