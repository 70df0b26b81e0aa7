"""The shipped models by runtime: what a crop costs, what loading costs, and how far answers are from ONNX Runtime's.

    .venv/bin/python benchmarks/runtimes/shipped.py --runtime onnx --runtime openvino --photos photos/ --model catdog

Every runtime has the same streams of one thread each; the runtimes take turns within a round. Wall-clock time needs an
idle machine; CPU time says how much work a crop is on a busy one too. Medians of the rounds are printed as Markdown.
"""

import argparse
import random
import statistics
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from inference.classifier import Classifier
from inference.errors import ImageError
from inference.golden import golden_crops
from inference.prediction import Logits
from inference.preprocessing import Crop
from inference.repository import Artifact, Repository
from inference.runtimes.registry import CANDIDATES, RUNTIMES


def crops_of(classifier: Classifier, photos: Iterable[Path], count: int) -> list[Crop]:
    """The crops of so many photos, drawn at random but always the same ones; what cannot be read is left out."""
    found: list[Crop] = []
    drawn = sorted(path for path in photos if path.is_file())
    random.Random(0).shuffle(drawn)
    for path in drawn:
        if len(found) < count:
            try:
                found.append(classifier.preprocess(path.read_bytes()))
            except ImageError:
                continue
    return found


def logits_of(classifier: Classifier, crops: Iterable[Crop]) -> Logits:
    return np.concatenate([classifier.logits(crop[None]) for crop in crops])


def one_round(classifier: Classifier, crop: Crop, pictures: int, streams: int) -> tuple[float, float]:
    """Wall-clock and CPU milliseconds per crop."""
    with ThreadPoolExecutor(streams) as pool:
        wall, work = time.perf_counter(), time.process_time()
        list(pool.map(classifier.logits, [crop[None]] * pictures))
        return (time.perf_counter() - wall) / pictures * 1000, (time.process_time() - work) / pictures * 1000


def load(artifact: Artifact, runtime: str, streams: int) -> tuple[Classifier, float]:
    """A classifier, and the CPU seconds of loading it: the package's import, the model, the self-test."""
    work = time.process_time()
    classifier = Classifier.load(artifact, runtime=runtime, device="cpu", streams=streams)
    return classifier, time.process_time() - work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="catdog")
    parser.add_argument("--runtime", action="append", choices=RUNTIMES, help=f"default: {', '.join(CANDIDATES)}")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--compared", type=int, default=200, help="how many photos")
    parser.add_argument("--pictures", type=int, default=100, help="crops per round")
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    artifact = Repository(options.models).open(options.model)
    names = options.runtime or list(CANDIDATES)
    loaded = {name: load(artifact, name, options.streams) for name in names}
    reference = Classifier.load(artifact, device="cpu")
    crops = crops_of(reference, options.photos.rglob("*"), options.compared)
    expected = logits_of(reference, crops)
    golden = golden_crops(artifact.manifest.preprocessing.crop)[0]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for round_ in range(options.rounds + 1):
        for name, (classifier, _) in loaded.items():
            measured = one_round(classifier, golden, options.pictures, options.streams)
            if round_:  # the first warms up
                times[name].append(measured)
    print(f"{artifact.name}, {options.streams} streams, {len(crops)} photos\n")
    print("| runtime | wall ms | CPU ms | CPU ms, rounds | CPU s to load | largest \\|Δlogit\\| | mean | same label |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (classifier, loading) in loaded.items():
        wall, work = (statistics.median(column) for column in zip(*times[name], strict=True))
        rounds = ", ".join(f"{each:.1f}" for _, each in times[name])
        found = logits_of(classifier, crops)
        difference = np.abs(found - expected)
        same = (found.argmax(1) == expected.argmax(1)).mean()
        speed = f"{wall:.1f} | {work:.1f} | {rounds} | {loading:.2f}"
        print(f"| {name} | {speed} | {difference.max():.2g} | {difference.mean():.2g} | {same:.1%} |")


if __name__ == "__main__":
    main()
