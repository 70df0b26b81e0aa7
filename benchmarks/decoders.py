"""What decoding at a part of the size saves, and what it changes: time, memory and labels, by the size of the photo.

    .venv/bin/python benchmarks/decoders.py --photos DATA/catdog/val --model catdog

Real photos are enlarged, with the grain of a sensor added: enlarging cannot add the detail that a large photo has. Both
decoders see the same bytes in turn; time is CPU time of one thread from bytes to crop, the median over the photos.
Labels are those of the shipped model.
"""

import argparse
import statistics
import time
from pathlib import Path

import gate  # names the folder that the following are in
import numpy as np

from inference.classifier import Classifier
from inference.preprocessing import Crop, Preprocessing
from inference.repository import Repository

from photos import KINDS, Kind, pictures  # isort: skip

from evaluation.figures import wilson_interval  # isort: skip

WIDTHS = (500, 1200, 2001, 4000, 4003)
"""Pixels; the shape and the grain are the phone photo's."""


def crop(preprocessing: Preprocessing, data: bytes) -> tuple[Crop, float, int]:
    """The crop, the CPU milliseconds that it took, and the pixels that were decoded."""
    began = time.thread_time()
    decoded = preprocessing.decode(data)
    cut = preprocessing.crop_of(*decoded)
    return cut, 1e3 * (time.thread_time() - began), decoded.image.width * decoded.image.height


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", default="catdog")
    parser.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    classifier = Classifier.load(Repository(gate.ROOT / "models").open(arguments.model), device="cpu")
    exact = classifier.artifact.manifest.preprocessing
    drafted = exact.model_copy(update={"decoder": "pillow-draft"})
    phone = KINDS["phone"]
    print(
        "| photo | kB | decoded at | CPU ms | draft | ratio | mean \\|Δpixel\\| | largest \\|Δlogit\\| | same label |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for width in WIDTHS:
        kind = Kind((width, width * phone.size[1] // phone.size[0]), phone.grain, phone.quality)
        took: tuple[list[float], list[float]] = [], []
        pixels, logits, sizes, shares = list[float](), list[float](), list[int](), list[float]()
        agreed = 0
        for data in pictures(arguments.photos, kind, arguments.count):
            (one, slow, full), (other, fast, part) = crop(exact, data), crop(drafted, data)
            took[0].append(slow)
            took[1].append(fast)
            sizes.append(len(data))
            shares.append((part / full) ** 0.5)
            pixels.append(float(np.abs(one.astype(int) - other).mean()))
            answers = classifier.logits(np.stack([one, other]))
            logits.append(float(np.abs(answers[0] - answers[1]).max()))
            agreed += int(answers[0].argmax() == answers[1].argmax())
        slow, fast, weight = *map(statistics.median, took), statistics.mean(sizes)
        low, high = wilson_interval(agreed, arguments.count)
        print(
            f"| {kind.size[0]} × {kind.size[1]} | {weight / 1e3:,.0f} | {statistics.median(shares):.3g} "
            f"| {slow:.1f} | {fast:.1f} | {slow / fast:.2f} | {statistics.mean(pixels):.2f} | {max(logits):.2g} "
            f"| {agreed} of {arguments.count} ({low:.1%} to {high:.1%}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
