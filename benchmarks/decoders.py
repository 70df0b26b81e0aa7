"""What decoding at a part of the size saves, and what it changes: time, pixels and labels, by the size of the photo.

    .venv/bin/python benchmarks/decoders.py --photos DATA/catdog/val --model catdog
    .venv/bin/python benchmarks/decoders.py --photos DATA/catdog/val --memory

Real photos are enlarged, with the grain of a sensor added: enlarging cannot add the detail that a large photo has. Both
decoders see the same bytes in turn; time is CPU time of one thread from bytes to crop, the median over the photos.
Labels are those of the shipped model. With --memory: how far one 12-megapixel photo raises the peak resident memory of
a fresh process for each decoder, as a baseline and as a progressive JPEG (Linux).
"""

import argparse
import io
import re
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import gate  # names the folder that the following are in
import numpy as np
from PIL import Image

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


def needed(preprocessing: Preprocessing, data: bytes) -> float:
    """MB by which a picture's crop raises the peak of this process, once all code is loaded."""
    with Image.open(io.BytesIO(data)) as image:
        preprocessing(_encoded(Image.new("RGB", (300, 300)), "progressive" in image.info))
    before = _peak()
    preprocessing(data)
    return (_peak() - before) / 1e6


def _peak() -> int:
    # Not getrusage, whose peak is also that of the parent at the start.
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


def _encoded(image: Image.Image, progressive: bool) -> bytes:
    target = io.BytesIO()
    image.save(target, "JPEG", quality=KINDS["phone"].quality, progressive=progressive)
    return target.getvalue()


def show_memory(photos: Path, decoders: tuple[Preprocessing, Preprocessing]) -> None:
    """Print the table of --memory."""
    (baseline,) = pictures(photos, KINDS["phone"], 1)
    with Image.open(io.BytesIO(baseline)) as image:
        progressive = _encoded(image, progressive=True)
    print("| 12-megapixel JPEG | MB | draft |\n|---|---|---|")
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        for name, data in (("baseline", baseline), ("progressive", progressive)):
            whole, draft = fresh.map(needed, decoders, (data, data))
            print(f"| {name} | {whole:.0f} | {draft:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", default="catdog")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    classifier = Classifier.load(Repository(gate.ROOT / "models").open(arguments.model), device="cpu")
    exact = classifier.artifact.manifest.preprocessing
    drafted = exact.model_copy(update={"decoder": "pillow-draft"})
    if arguments.memory:
        show_memory(arguments.photos, (exact, drafted))
        return
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
