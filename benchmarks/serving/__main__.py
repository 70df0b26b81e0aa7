"""Petalpaw beside its peers: the same ONNX file, the same photos, equal labels, alternating rounds, one machine.

    .venv/bin/python benchmarks/serving --photos DATA --rounds 5 --open
    .venv/bin/python benchmarks/serving --photos DATA --append --contenders petalpaw triton --kinds phone --clients 16
    .venv/bin/python benchmarks/serving --report                # the tables and the chart again, from the JSON

A round runs the in-process limit (limit.py: no HTTP) and starts each contender in turn, in another order each time:
it checks that the labels equal the in-process classifier's, warms up, measures, and stops it. Closed loop: wrk. With
--open, Poisson arrivals at 50, 80 and 95 % of the contender's own best closed-loop rate of that round. The clients and
the servers share the cores. Raw figures go to RESULTS.json, medians to RESULTS.md and RESULTS.svg; --append adds rounds
to what is there, so that a shared machine can be asked for a few minutes at a time.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from chart import draw
from contenders import CONTENDERS, Body, Contender
from drafts import drafted
from load import Bodies, Load, closed, opened
from photos import KINDS, pictures
from processes import cpu_seconds, free_port, memory_mb, ready, stop
from report import LIMIT, Record, cores, document, machine

from inference.classifier import Classifier
from inference.errors import ImageError
from inference.repository import Repository

SHARES = (0.5, 0.8, 0.95)
WARM_UP_S = 3
SETTLE_S = 0.5
"""Before each load: the requests that the last one left behind would be in the way of its first."""
MODEL = "flowers"
PEERS = [name for name in CONTENDERS if not name.startswith("petalpaw-")]
ROOT = Path(__file__).parents[2]

Server = subprocess.Popen[bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of JPEG photos; pictures of each kind are made from them")
    parser.add_argument("--contenders", nargs="+", default=PEERS, choices=list(CONTENDERS))
    parser.add_argument("--int8", type=Path, help="a repository for petalpaw-int8, of exports with --precision int8")
    parser.add_argument("--kinds", nargs="+", default=["photos"], choices=list(KINDS))
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=5, help="per measurement")
    parser.add_argument("--count", type=int, default=16, help="different pictures")
    parser.add_argument("--open", action="store_true", help="Poisson arrivals as well")
    parser.add_argument("--venvs", type=Path, default=ROOT / ".venv" / "contenders")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "serving", help="no suffix")
    parser.add_argument("--append", action="store_true", help="add to the results that are there")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    path = arguments.results.with_suffix(".json")
    results: dict[str, Any] = {"calls": [], "pictures": {}, "records": []}
    if arguments.append or arguments.report:
        results = json.loads(path.read_text())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server outlives a run that is ended
    if not arguments.report:
        if arguments.photos is None:
            parser.error("--photos is missing: name a folder of JPEG photos")
        measure(arguments, results, path)
    arguments.results.with_suffix(".md").write_text(document(results))
    draw(results["records"], arguments.results.with_suffix(".svg"))


def measure(arguments: argparse.Namespace, results: dict[str, Any], path: Path) -> None:
    """Run the rounds; what is measured goes into `results` and, as it comes, to `path`."""
    os.environ["BENCHMARK_REPOSITORY"] = str(ROOT / "models")
    os.environ["BENCHMARK_INT8"] = str(arguments.int8 and arguments.int8.resolve())
    pythons = {name: CONTENDERS[name].interpreter(arguments.venvs) for name in arguments.contenders}
    results["calls"].append(call())
    first = 1 + max((record["round"] for record in results["records"]), default=-1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BENCHMARK_DRAFTS"] = str(drafted(ROOT / "models", Path(folder) / "drafts"))
        for kind in arguments.kinds:
            trial = Trial(Path(folder) / kind, kind, arguments)
            results["pictures"][kind] = trial.described()
            for number in range(first, first + arguments.rounds):
                results["records"] += trial.limit(number)
                turn = number % len(arguments.contenders)
                for name in arguments.contenders[turn:] + arguments.contenders[:turn]:
                    results["records"] += trial.measured(CONTENDERS[name], pythons[name], number)
                    path.write_text(json.dumps(results, indent=1) + "\n")


def call() -> dict[str, str]:
    """When, where and on which commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit.stdout.strip(),
        "machine": machine(),
        "load average": f"{os.getloadavg()[0]:.1f}",
        # Results are published, and where things lie on one machine is nobody's business.
        "arguments": " ".join(Path(each).name if "/" in each else each for each in sys.argv[1:]),
    }


class Trial:
    """One kind of picture, and what all contenders must answer to each."""

    def __init__(self, folder: Path, kind: str, arguments: argparse.Namespace) -> None:
        self.folder, self.kind, self.arguments = folder, kind, arguments
        self.data = pictures(arguments.photos, KINDS[kind], arguments.count)
        (folder / "pictures").mkdir(parents=True)
        for index, picture in enumerate(self.data):
            (folder / "pictures" / f"{index:03d}.jpg").write_bytes(picture)
        artifact = Repository(ROOT / "models").open(MODEL)
        self.model = artifact.folder
        outcomes = Classifier.load(artifact, device="cpu").classify(self.data)
        self.labels = [outcome.label for outcome in outcomes if not isinstance(outcome, ImageError)]
        assert len(self.labels) == len(self.data)

    def described(self) -> dict[str, object]:
        width, height = KINDS[self.kind].size
        mean = statistics.mean(len(data) for data in self.data)
        return {"count": len(self.data), "width": width, "height": height, "mean_bytes": round(mean)}

    def limit(self, number: int) -> list[Record]:
        """The in-process limit, at one stream (a single client's) and at as many as cores."""
        records = []
        for streams in (1, cores()):
            command = [sys.executable, Path(__file__).with_name("limit.py"), ROOT / "models", MODEL]
            command += [f"{self.arguments.seconds}", f"{streams}", self.folder / "pictures"]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
            records.append(self._record(LIMIT, number, f"{streams} streams", json.loads(said)))
        return records

    def measured(self, contender: Contender, python: Path, number: int) -> list[Record]:
        """One round of one contender, from start to stop; what fails is said and gives no figures.

        It is ready when the first picture is answered: some servers call themselves ready before their workers are.
        """
        port = free_port()
        home = self.folder / f"{contender.name}-{number}"
        home.mkdir()
        log = Path(tempfile.gettempdir()) / f"serving-{contender.name}.log"
        began = time.perf_counter()
        server = contender.started(python, port, home, log, self.model)
        try:
            url = f"http://127.0.0.1:{port}"
            ready(server, url + contender.ready)
            bodies = Bodies(home / "bodies", [contender.body(data) for data in self.data])
            self._check(contender, url + contender.path, bodies.bodies[:1])
            ready_s = time.perf_counter() - began
            self._check(contender, url + contender.path, bodies.bodies)
            closed(url + contender.path, bodies, 16, WARM_UP_S)
            return [
                self._record(contender.name, number, load, figures | {"ready_s": ready_s})
                for load, figures in self._loads(url + contender.path, bodies, server, number).items()
            ]
        except (AssertionError, OSError, httpx.HTTPError, subprocess.SubprocessError) as error:
            print(f"{contender.name}: {error}; see {log}", file=sys.stderr)
            return [self._record(contender.name, number, "failed", {"error": str(error)[:300]})]
        finally:
            stop(server)

    def _loads(self, url: str, bodies: Bodies, server: Server, number: int) -> dict[str, dict[str, float]]:
        """Name of the load → its figures."""
        seconds, found = self.arguments.seconds, dict[str, dict[str, float]]()

        def note(name: str, load: Callable[[], Load]) -> None:
            time.sleep(SETTLE_S)
            before = cpu_seconds(server)
            seen = load()
            spent = cpu_seconds(server) - before
            found[name] = asdict(seen) | {"cpu_ms": 1e3 * spent / max(1, seen.count), "memory_mb": memory_mb(server)}

        for clients in self.arguments.clients:
            note(f"{clients} clients", lambda clients=clients: closed(url, bodies, clients, seconds))
        if self.arguments.open:
            capacity = max(figures["rate"] for figures in found.values())
            for share in SHARES:
                note(f"open {share:.0%}", lambda share=share: opened(url, bodies, share * capacity, seconds, number))
        return found

    def _record(self, name: str, number: int, load: str, figures: dict[str, Any]) -> Record:
        record: Record = {"contender": name, "kind": self.kind, "round": number, "load": load, **figures}
        print(json.dumps(record), file=sys.stderr, flush=True)
        return record

    def _check(self, contender: Contender, url: str, bodies: list[Body]) -> None:
        with httpx.Client(timeout=60, trust_env=False) as client:
            for index, body in enumerate(bodies):
                answer = client.post(url, content=body.data, headers=dict(body.headers))
                assert answer.status_code == 200, f"status {answer.status_code}: {answer.text[:200]}"
                found, wanted = contender.label(answer.json()), self.labels[index]
                assert found == wanted, f"picture {index} has label {found!r} instead of {wanted!r}"


if __name__ == "__main__":
    main()
