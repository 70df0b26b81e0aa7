"""How the service scales: measured on what there is, then extrapolated by a model that says so.

    .venv/bin/python benchmarks/scaling --photos DATA            # about three minutes of an idle machine
    .venv/bin/python benchmarks/scaling --report                 # again, from the JSON, with your prices in paper.py

Measured: `petalpaw serve` asked by wrk with 16 clients, on one core by affinity, on half a core, one and one and a half
by a control group's quota (left out where none can be made), on the whole machine, and as two processes; all are up at
once and take turns within a round. And one thread in process: decoding with preprocessing, and inference.
Fitted: simulation.py, whose one free figure is the time that a stream holds Python's lock; the others are CPU times of
the threads of the service. Extrapolated: more cores and processes, GPUs and prices (paper.py).
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from deployment import ROOT, SETTINGS, Record, Service

from inference.classifier import Classifier
from inference.repository import Repository

from photos import KINDS, pictures  # isort: skip  # deployment.py names the folder that these are in
from report import machine  # isort: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of JPEG photos")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "scaling.json")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if not options.report:
        if options.photos is None:
            parser.error("--photos is missing: name a folder of JPEG photos")
        options.json.write_text(json.dumps(measured(options), indent=1) + "\n")
    from table import document, draw

    results = json.loads(options.json.read_text())
    options.json.with_suffix(".md").write_text(document(results))
    draw(options.json.with_suffix(".png"), results)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds, as measured."""
    os.environ["BENCHMARK_REPOSITORY"] = str(ROOT / "models")
    data = pictures(options.photos, KINDS["photos"], 16)
    records, left_out = list[Record](), list[str]()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        services = []
        for index, setting in enumerate(SETTINGS):
            try:
                services.append(Service(setting, Path(name) / str(index), data, stack))
            except OSError as error:
                left_out.append(f"{setting.name} ({error.strerror})")
        stages = stages_of(data)
        for number in range(options.rounds):
            for each in services:
                records.append(each.measured(options.seconds) | {"round": number})
                print(records[-1], file=sys.stderr, flush=True)
    size = statistics.mean(map(len, data))
    return {"machine": machine(), "bytes": size, "stages": stages, "left out": left_out, "records": records}


def stages_of(data: list[bytes], rounds: int = 5) -> dict[str, float]:
    """Milliseconds an image in one thread of this process, medians of the rounds."""
    classifier = Classifier.load(Repository(ROOT / "models").open("flowers"), device="cpu", streams=1)
    times: dict[str, list[float]] = {"decode": [], "model": []}
    for _ in range(rounds):
        began = time.perf_counter()
        crops = [classifier.preprocess(picture) for picture in data]
        middle = time.perf_counter()
        for crop in crops:
            classifier.logits(crop[None])
        times["decode"].append(1e3 * (middle - began) / len(data))
        times["model"].append(1e3 * (time.perf_counter() - middle) / len(data))
    return {name: statistics.median(found) for name, found in times.items()}


if __name__ == "__main__":
    main()
