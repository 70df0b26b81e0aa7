"""Parallel streams against batches and threads on a CPU: the model alone, on golden inputs.

    .venv/bin/python benchmarks/streams.py --model catdog --rounds 5

Each shape runs the same number of pictures; the shapes take turns within a round. Medians are printed as Markdown, as
images per second and as a ratio to one stream of one thread at batch 1.
"""

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from inference.golden import golden_crops
from inference.repository import Repository
from inference.runtimes.base import Load
from inference.runtimes.registry import load_runtime

SHAPES = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 8), (1, 1, 16), (1, 2, 8), (1, 2, 16)]
"""Streams, threads inside the runtime, batch size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="catdog")
    parser.add_argument("--pictures", type=int, default=192, help="a multiple of 16")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    artifact = Repository(options.models).open(options.model)
    crops = np.resize(
        golden_crops(artifact.manifest.preprocessing.crop), (16, *artifact.manifest.signature.input.shape[1:])
    )
    runtimes = {threads: load_runtime("onnx", artifact.folder, "cpu", Load(threads)) for threads in (1, 2)}
    rates: dict[tuple[int, int, int], list[float]] = {shape: [] for shape in SHAPES}
    for round_ in range(options.rounds + 1):
        for streams, threads, batch in SHAPES:
            with ThreadPoolExecutor(streams) as pool:
                began = time.perf_counter()
                list(pool.map(runtimes[threads].run, [crops[:batch]] * (options.pictures // batch)))
                if round_:  # the first round warms up
                    rates[streams, threads, batch].append(options.pictures / (time.perf_counter() - began))
    one = statistics.median(rates[SHAPES[0]])
    print("| streams | threads | batch | images/s, median | to the first | rounds |\n|---|---|---|---|---|---|")
    for shape, found in rates.items():
        middle = statistics.median(found)
        rounds = ", ".join(f"{rate:.0f}" for rate in found)
        print(f"| {shape[0]} | {shape[1]} | {shape[2]} | {middle:.0f} | {middle / one:.2f} | {rounds} |")


if __name__ == "__main__":
    main()
