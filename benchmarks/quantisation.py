"""int8 beside float32: what a crop and a whole picture cost on each runtime, and how often the labels are equal.

    .venv/bin/petalpaw export models/catdog/1 --precision int8 --data photos/ --run runs/catdog-int8
    .venv/bin/python benchmarks/quantisation.py runs/catdog-int8/artifact

Every runtime has one stream of one thread per core; the runtimes take turns within a round, so that a ratio compares
neighbours in time. A whole picture is a JPEG of 500 × 415 pixels and 40 KB, decoded, resized, classified. Medians are
printed as Markdown; CPU time says how much work a piece is on a busy machine too. The agreement is what the export
measured on all validation photos.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gate import picture

from inference.budget import whole_cores
from inference.classifier import Classifier
from inference.errors import RuntimeMissing
from inference.repository import Artifact

KINDS = ("crop", "picture")
RUNTIMES = ("onnx", "openvino", "onnx-int8", "openvino-int8")
Work = Callable[[bytes], object]


def measured(work: Work, pictures: list[bytes], count: int, streams: int) -> tuple[float, float]:
    """Pieces of work per second, so many streams at a time, and the CPU milliseconds of one."""
    with ThreadPoolExecutor(streams) as pool:
        wall, cpu = time.perf_counter(), time.process_time()
        list(pool.map(work, [pictures[index % len(pictures)] for index in range(count)]))
        return count / (time.perf_counter() - wall), (time.process_time() - cpu) / count * 1000


def kinds(classifier: Classifier, pictures: list[bytes]) -> dict[str, Work]:
    """The model alone, and a picture from its bytes to its answer."""
    crop = classifier.preprocess(pictures[0])[None]
    return {"crop": lambda _: classifier.logits(crop), "picture": lambda data: classifier.classify([data])}


def loaded(artifact: Artifact, streams: int) -> dict[str, Classifier]:
    found = {}
    for name in RUNTIMES:
        try:
            found[name] = Classifier.load(artifact, runtime=name, device="cpu", streams=streams)
        except RuntimeMissing as error:
            print(f"without {name}: {error.detail}")
    return found


def table(artifact: Artifact, rounds: int, count: int, streams: int) -> None:
    pictures = [picture(seed) for seed in range(8)]
    work = {name: kinds(classifier, pictures) for name, classifier in loaded(artifact, streams).items()}
    found: dict[tuple[str, str], list[tuple[float, float]]] = {(kind, name): [] for kind in KINDS for name in work}
    for round_ in range(rounds + 1):
        for kind, name in found:
            figures = measured(work[name][kind], pictures, count, streams)
            if round_:  # the first warms up
                found[kind, name].append(figures)
    print(f"\n{artifact.name}, {streams} streams, {rounds} rounds of {count}\n")
    print("| | runtime | per second | to onnx | rounds | CPU ms | to onnx |")
    print("|---|---|---|---|---|---|---|")
    for (kind, name), figures in found.items():
        (rates, costs), (base, cost) = zip(*figures, strict=True), zip(*found[kind, "onnx"], strict=True)
        gains = [rate / other for rate, other in zip(rates, base, strict=True)]
        saved = statistics.median(other / mine for mine, other in zip(costs, cost, strict=True))
        listed = ", ".join(f"{gain:.2f}" for gain in gains)
        speed = f"{statistics.median(rates):.0f} | {statistics.median(gains):.2f} | {listed}"
        print(f"| {kind} | {name} | {speed} | {statistics.median(costs):.2f} | {saved:.2f} |")
    print()
    for figure in artifact.manifest.quantized.figures if artifact.manifest.quantized else ():
        print(f"- {figure}; mean |Δlogit| {figure.mean_difference:.3f}, largest {figure.max_difference:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path, nargs="+", help="folders with a manifest and model.int8.onnx")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=300, help="crops or pictures per round")
    parser.add_argument("--streams", type=int, default=whole_cores())
    options = parser.parse_args()
    for folder in options.artifacts:
        table(Artifact.open(folder), options.rounds, options.count, options.streams)


if __name__ == "__main__":
    main()
