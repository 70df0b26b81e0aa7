"""Petalpaw beside its peers: the same ONNX file, the same photos, equal labels, alternating rounds, one machine.

    .venv/bin/python benchmarks/serving --photos DATA/flowers --rounds 3 > serving.md
    .venv/bin/python benchmarks/serving --photos DATA/flowers --contenders petalpaw fastapi --kinds phone --open

A round starts each contender in turn, checks that its labels equal the in-process classifier's, warms it up, measures,
and stops it; the in-process limit (limit.py: as many streams as cores, no HTTP) takes its turn in every round as well.
Closed loop: wrk with 1, 16 and 64 clients. With --open, Poisson arrivals at 50, 80 and 95 % of the contender's own
closed-loop rate. Medians over the rounds; raw figures go to the JSON file beside. wrk and the servers share the cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from contenders import CONTENDERS, Contender
from load import Bodies, as_dict, closed, opened
from photos import KINDS, pictures
from processes import cpu_seconds, free_port, memory_mb, ready, stop
from report import LIMIT, Record, table

from inference.classifier import Classifier
from inference.errors import ImageError
from inference.repository import Repository

CLIENTS = (1, 16, 64)
SHARES = (0.5, 0.8, 0.95)
MODEL = "flowers"
ROOT = Path(__file__).parents[2]

Server = subprocess.Popen[bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEG photos")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--kinds", nargs="+", default=["photos"], choices=KINDS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="per measurement")
    parser.add_argument("--count", type=int, default=32, help="different pictures")
    parser.add_argument("--open", action="store_true", help="Poisson arrivals as well")
    parser.add_argument("--venvs", type=Path, default=ROOT / ".venv" / "contenders")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "serving.json")
    arguments = parser.parse_args()
    os.environ["BENCHMARK_REPOSITORY"] = str(ROOT / "models")
    contenders = [CONTENDERS[name] for name in arguments.contenders]
    pythons = {each.name: each.interpreter(arguments.venvs) for each in contenders}
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds:
            trial = Trial(Path(folder) / kind, pictures(arguments.photos, kind, arguments.count), kind, arguments)
            for number in range(arguments.rounds):
                records += trial.limit(number)
                for each in contenders:
                    records += trial.measured(each, pythons[each.name], number)
                    arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    print(table(records, " ".join(sys.argv[1:])))


class Trial:
    """One kind of picture, and what all contenders must answer to each."""

    def __init__(self, folder: Path, data: list[bytes], kind: str, arguments: argparse.Namespace) -> None:
        self.folder, self.data, self.kind, self.arguments = folder, data, kind, arguments
        (folder / "pictures").mkdir(parents=True)
        for index, picture in enumerate(data):
            (folder / "pictures" / f"{index:03d}.jpg").write_bytes(picture)
        artifact = Repository(ROOT / "models").open(MODEL)
        self.model = artifact.folder
        outcomes = Classifier.load(artifact, device="cpu").classify(data)
        self.labels = [outcome.label for outcome in outcomes if not isinstance(outcome, ImageError)]
        assert len(self.labels) == len(data)

    def limit(self, number: int) -> list[Record]:
        """The in-process limit, at one stream (a single client's) and at as many as cores."""
        records = []
        for streams in (1, len(os.sched_getaffinity(0))):
            command = [sys.executable, Path(__file__).with_name("limit.py"), ROOT / "models", MODEL]
            command += [f"{self.arguments.seconds}", f"{streams}", self.folder / "pictures"]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
            records.append(self._record(LIMIT, number, f"{streams} streams", json.loads(said)))
        return records

    def measured(self, contender: Contender, python: Path, number: int) -> list[Record]:
        """One round of one contender, from start to stop; what fails is said and gives no figures."""
        port = free_port()
        home = self.folder / f"{contender.name}-{number}"
        home.mkdir()
        if contender.name == "mlserver":
            for source in (Path(__file__).parent / "apps" / "mlserver_plain").iterdir():
                (home / source.name).write_bytes(source.read_bytes())
            (home / "settings.json").write_text(
                json.dumps({"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2})
            )
        log = Path(tempfile.gettempdir()) / f"serving-{contender.name}.log"
        began = time.perf_counter()
        server = contender.started(python, port, home, log, self.model)
        try:
            url = f"http://127.0.0.1:{port}"
            ready(server, url + contender.ready)
            ready_s = time.perf_counter() - began
            bodies = Bodies(home / "bodies", [contender.body(data) for data in self.data])
            self._check(contender, url + contender.path, bodies)
            closed(url + contender.path, bodies, 16, 3)
            return self._loads(contender, number, url + contender.path, bodies, server, ready_s)
        except (AssertionError, OSError, httpx.HTTPError, subprocess.SubprocessError) as error:
            print(f"{contender.name}: {error}; see {log}", file=sys.stderr)
            return [self._record(contender.name, number, "failed", {"error": str(error)[:300]})]
        finally:
            stop(server)

    def _loads(
        self,
        contender: Contender,
        number: int,
        url: str,
        bodies: Bodies,
        server: subprocess.Popen[bytes],
        ready_s: float,
    ) -> list[Record]:
        records, seconds = [], self.arguments.seconds
        for clients in CLIENTS:
            before = cpu_seconds(server)
            load = closed(url, bodies, clients, seconds)
            spent = cpu_seconds(server) - before
            cpu_ms = 1e3 * spent / max(1.0, load.rate * seconds)
            figures = as_dict(load) | {"cpu_ms": cpu_ms, "memory_mb": memory_mb(server), "ready_s": ready_s}
            records.append(self._record(contender.name, number, f"{clients} clients", figures))
        if self.arguments.open:
            capacity = max(float(str(record["rate"])) for record in records)
            for share in SHARES:
                load = opened(url, bodies, share * capacity, seconds, number)
                records.append(self._record(contender.name, number, f"open {share:.0%}", as_dict(load)))
        return records

    def _record(self, name: str, number: int, load: str, figures: dict[str, object] | dict[str, float]) -> Record:
        record: Record = {"contender": name, "kind": self.kind, "round": number, "load": load, **figures}
        print(json.dumps(record), file=sys.stderr, flush=True)
        return record

    def _check(self, contender: Contender, url: str, bodies: Bodies) -> None:
        with httpx.Client(timeout=60, trust_env=False) as client:
            for body, wanted in zip(bodies.bodies, self.labels, strict=True):
                answer = client.post(url, content=body.data, headers=dict(body.headers))
                assert answer.status_code == 200, f"status {answer.status_code}: {answer.text[:200]}"
                found = contender.label(answer.json())
                assert found == wanted, f"label {found!r} instead of {wanted!r}"


if __name__ == "__main__":
    main()
