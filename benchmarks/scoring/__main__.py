"""Offline scoring beside its limit and its peers, on one machine, in one run.

    .venv/bin/python benchmarks/scoring --photos photos/ --count 400 --rounds 5 --mlserver MLSERVERS_VENV/bin/python

Everything scores the same photos with the same model on the CPU, in turns within a round; the first round warms up.
The limit has the files in memory and only decodes and infers, on as many threads as cores; the others read files and
write an answer for each. `command` is measured from start to end of a process, the others once they are loaded.

    limit           threads that decode and infer with ONNX Runtime, nothing else
    local           the local engine into a CSV file
    loop            `classifier.classify` in a plain loop
    torch           a DataLoader with as many workers as cores and the TorchScript module on batches, as timm's script
    ray             the cluster engine on Ray processes of this machine, after the first blocks
    command         `petalpaw score`, its start included
    mlserver        `mlserver infer` against a running server whose runtime decodes, with 16 workers; its start included

Prints Markdown: pictures per second, the ratio to the limit of the same round, CPU time per picture; medians.
"""

import argparse
import base64
import csv
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from inference.budget import whole_cores
from inference.classifier import Classifier
from inference.prediction import Prediction
from inference.repository import Artifact, Repository
from scoring.files import Files
from scoring.local import LocalEngine
from scoring.run import score
from scoring.scorer import Scorer
from scoring.sinks import FileSink

ROOT = Path(__file__).parents[2]
SERVING = ROOT / "benchmarks" / "serving"
TORCH_BATCH = 32

Trial = Callable[[], float | None]
"""Scores all photos. Returns the seconds that count, None for all that it took."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="catdog")
    parser.add_argument(
        "--mlserver", type=Path, help="Python of a venv: mlserver==1.7.1 uvloop<0.22 onnxruntime pillow"
    )
    parser.add_argument("--without", nargs="*", default=[], help="trials to leave out")
    arguments = parser.parse_args()
    artifact = Repository(ROOT / "models").open(arguments.model)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        photos = gathered(arguments.photos, arguments.count, work / "photos")
        trials = {name: trial for name, trial in made(artifact, photos, work).items() if name not in arguments.without}
        if "ray" not in arguments.without:
            trials["ray"] = stack.enter_context(on_ray(artifact, photos))
        if arguments.mlserver:
            trials["mlserver"] = stack.enter_context(with_mlserver(arguments.mlserver, artifact, photos, work))
        print(table(measured(trials, arguments.rounds, arguments.count), arguments))


def gathered(folder: Path, count: int, target: Path) -> Path:
    """The first so many photos, in the order of their names, as links."""
    target.mkdir()
    found = sorted(folder.rglob("*.jpg"))[:count]
    if len(found) < count:
        sys.exit(f"{folder} holds {len(found)} photos, --count wants {count}")
    for index, path in enumerate(found):
        (target / f"{index:05}.jpg").symlink_to(path.resolve())
    return target


def made(artifact: Artifact, photos: Path, work: Path) -> dict[str, Trial]:
    """The trials that need nothing but this process and its children."""
    classifier = Classifier.load(artifact, device="cpu")
    files = sorted(photos.iterdir())
    in_memory = [path.read_bytes() for path in files]
    module = torch_module(artifact)

    def limit() -> None:
        with ThreadPoolExecutor(whole_cores()) as pool:
            found = pool.map(lambda data: classifier.logits(classifier.preprocess(data)[None]), in_memory)
            assert len(list(found)) == len(files)

    def local() -> None:
        output = work / "local.csv"
        summary = score(Files([photos]), LocalEngine(Scorer(classifier)), FileSink(output, overwrite=True))
        assert summary.answered == len(files)

    def loop() -> None:
        with (work / "loop.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            for path in files:
                (answer,) = classifier.classify([path.read_bytes()])
                assert isinstance(answer, Prediction)
                writer.writerow([path, answer.label, answer.probability])

    def torch() -> None:
        assert torch_loop(module, artifact, files, work / "torch.csv") == len(files)

    def command() -> None:
        arguments = ["score", photos, "--model", artifact.name, "--device", "cpu", "--output", work / "command.csv"]
        ran([sys.executable, "-m", "petalpaw", *arguments, "--overwrite"])

    return {"limit": limit, "local": local, "loop": loop, "torch": torch, "command": command}


class Pictures:
    """A data set as torch's loader wants it: files to uint8 crops by the artifact's own preprocessing."""

    def __init__(self, artifact: Artifact, files: list[Path]) -> None:
        self._preprocessing = artifact.manifest.preprocessing
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        return self._preprocessing(self._files[index].read_bytes()), index


def torch_module(artifact: Artifact) -> Any:
    import torch

    return torch.jit.load(artifact.folder / "model.torchscript.pt").eval()


def torch_loop(module: Any, artifact: Artifact, files: list[Path], output: Path) -> int:
    import torch

    torch.set_num_threads(whole_cores())
    loader = torch.utils.data.DataLoader(
        Pictures(artifact, files),  # type: ignore[arg-type]  # has what a map-style data set must have
        batch_size=TORCH_BATCH,
        num_workers=whole_cores(),
    )
    rows = 0
    with output.open("w", newline="") as file, torch.inference_mode():
        writer = csv.writer(file)
        for crops, indices in loader:
            probability, best = module(crops).softmax(dim=1).max(dim=1)
            for index, label, sure in zip(indices.tolist(), best.tolist(), probability.tolist(), strict=True):
                writer.writerow([files[index], artifact.manifest.labels[label], sure])
                rows += 1
    return rows


@contextmanager
def on_ray(artifact: Artifact, photos: Path) -> Iterator[Trial]:
    """The cluster engine here; actors start anew for each run, which the first row waits for."""
    from scoring.cluster import BLOCK, ClusterEngine

    in_hand = 2 * whole_cores() * BLOCK
    if len(list(photos.iterdir())) < 2 * in_hand:
        sys.exit(f"with Ray, --count is to be {2 * in_hand} or more; --without ray, it may be less")
    began = time.perf_counter()
    with ClusterEngine(artifact, device="cpu") as engine:
        print(f"ray: {time.perf_counter() - began:.1f} s to start and to prove the model", file=sys.stderr)

        def trial() -> float:
            start, rows = time.perf_counter(), 0
            for _ in engine.rows(Files([photos])):
                rows += 1
                if rows == 1:
                    first = time.perf_counter()
                    print(f"ray: {first - start:.1f} s to the first row", file=sys.stderr)
            # Blocks come in order. With the first one, as many more may be done as actors have in hand: at least the
            # rest of the pictures took the rest of the time.
            return (time.perf_counter() - first) * rows / (rows - in_hand)

        yield trial


@contextmanager
def with_mlserver(python: Path, artifact: Artifact, photos: Path, work: Path) -> Iterator[Trial]:
    """A server with the runtime of the serving benchmark, and its own command for files of requests."""
    sys.path.insert(0, str(SERVING))
    from processes import free_port, ready, stop

    home, port = work / "mlserver", free_port()
    shutil.copytree(SERVING / "apps" / "mlserver_plain", home)
    (home / "settings.json").write_text(
        json.dumps({"http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "debug": False})
    )
    requests = home / "requests.jsonl"
    with requests.open("w") as file:
        for path in sorted(photos.iterdir()):
            data = [base64.b64encode(path.read_bytes()).decode()]
            picture = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data}
            file.write(json.dumps({"inputs": [picture]}) + "\n")
    environment = os.environ | {
        "BENCHMARK_MODEL": str(artifact.folder),
        "BENCHMARK_WORKERS": str(whole_cores()),
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_PARALLEL_WORKERS": str(whole_cores()),
        "PYTHONPATH": str(SERVING / "apps"),
    }
    mlserver = python.with_name("mlserver")
    with (Path(tempfile.gettempdir()) / "scoring-mlserver.log").open("wb") as log:
        server = subprocess.Popen([mlserver, "start", "."], cwd=home, env=environment, stdout=log, stderr=log)
        try:
            ready(server, f"http://127.0.0.1:{port}/v2/models/plain/ready")

            def trial() -> None:
                answers = home / "answers.jsonl"
                where = ["--url", f"127.0.0.1:{port}", "--model-name", "plain", "--workers", "16"]
                ran([mlserver, "infer", *where, "--input-data-path", requests, "--output-data-path", answers])
                lines = answers.read_text().splitlines()
                assert sum('"outputs"' in line for line in lines) == len(list(photos.iterdir())), lines[:1]

            yield trial
        finally:
            stop(server)


def ran(command: list[Any]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stderr[-2000:]}")


Measure = tuple[float, float]
"""Pictures per second, and milliseconds of this process's and its ended children's CPU time per picture."""


def measured(trials: dict[str, Trial], rounds: int, count: int) -> dict[str, list[Measure]]:
    found: dict[str, list[Measure]] = {name: [] for name in trials}
    for round_ in range(rounds + 1):
        for name, trial in trials.items():
            began, used = time.perf_counter(), cpu_seconds()
            seconds = trial() or time.perf_counter() - began
            if round_:  # the first round warms up
                found[name].append((count / seconds, 1e3 * (cpu_seconds() - used) / count))
            print(f"round {round_}: {name} {count / seconds:.1f}/s", file=sys.stderr)
    return found


def cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def table(found: dict[str, list[Measure]], arguments: argparse.Namespace) -> str:
    run = f"{arguments.count} photos, {arguments.rounds} rounds, {whole_cores()} cores"
    lines = [
        f"{run}; load average {os.getloadavg()[0]:.1f} at the end\n",
        "| | pictures/s | to the limit | CPU ms/picture | rounds, to the limit |",
        "|---|---|---|---|---|",
    ]
    for name, measures in found.items():
        ratios = [rate / best for (rate, _), (best, _) in zip(measures, found["limit"], strict=True)]
        rate, cpu = (statistics.median(column) for column in zip(*measures, strict=True))
        # The time of processes that go on is not in ours.
        shown = "" if name in ("ray", "mlserver") else f"{cpu:.1f}"
        rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        lines.append(f"| {name} | {rate:.1f} | {statistics.median(ratios):.2f} | {shown} | {rounds} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
