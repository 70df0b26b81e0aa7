"""Memory of `petalpaw score` over many rows: its curve, and a first guess at what a row costs.

    .venv/bin/python benchmarks/scoring/memory.py --rows 1000000 --work /tmp/memory

Makes a folder with so many small JPEGs (hard links to a thousand different ones) and a cheap model (the mean of each
colour plane), runs the command on it, and takes the resident memory of its process once a second. Prints Markdown: the
curve at twenty places, the peak, and by how much the second half rose. The work folder is kept for another run.
"""

import argparse
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from inference.repository import Repository
from tests.conftest import colour_artifact

ROOT = Path(__file__).parents[2]
DIFFERENT = 1000
SIDE = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--format", default="csv", choices=["csv", "jsonl", "parquet"])
    arguments = parser.parse_args()
    models, pictures = prepared(arguments.work, arguments.rows)
    output = arguments.work / f"rows.{arguments.format}"
    command = [sys.executable, "-m", "petalpaw", "score", pictures, "--models", models, "--device", "cpu"]
    command += ["--output", output, "--overwrite", "--restart"]
    log = (arguments.work / "log").open("wb")
    began = time.monotonic()
    run = subprocess.Popen(command, cwd=ROOT, stderr=log, env=os.environ | {"PYTHONPATH": str(ROOT)})
    points = list(sampled(run, output))
    seconds = time.monotonic() - began
    log.close()
    if run.wait() != 0:
        sys.exit(f"the run ended with {run.returncode}; see {log.name}")
    print(table(points, arguments.rows, seconds, output))


def prepared(work: Path, rows: int) -> tuple[Path, Path]:
    """The model repository and the folder of pictures, made where they are missing."""
    models, pictures = work / "models", work / f"pictures-{rows}"
    if not models.exists():
        Repository(models).publish(colour_artifact(work / "colours"))
    if not pictures.exists():
        random = np.random.default_rng(0)
        for index in range(rows):
            folder, first = pictures / f"{index // DIFFERENT:05}", pictures / "00000" / f"{index % DIFFERENT:03}.jpg"
            folder.mkdir(parents=True, exist_ok=True)
            if index < DIFFERENT:
                encoded = io.BytesIO()
                Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(encoded, "JPEG")
                first.write_bytes(encoded.getvalue())
            else:
                os.link(first, folder / first.name)
    return models, pictures


def sampled(run: "subprocess.Popen[bytes]", output: Path) -> "list[tuple[int, float]]":
    """Committed rows and resident MB, once a second while the command runs."""
    process, points, journal, read = psutil.Process(run.pid), [], output.with_name(output.name + ".parts"), 0
    rows = 0
    while run.poll() is None:
        try:
            with (journal / "journal.jsonl").open("rb") as file:
                file.seek(read)
                for line in file.read().splitlines(keepends=True):
                    if line.endswith(b"\n"):
                        read += len(line)
                        rows += int(line.partition(b'"rows": ')[2].partition(b",")[0] or 0)
            points.append((rows, process.memory_info().rss / 1e6))
        except (FileNotFoundError, psutil.NoSuchProcess):
            pass
        time.sleep(1)
    return points


def table(points: list[tuple[int, float]], rows: int, seconds: float, output: Path) -> str:
    """Twenty places of the curve, evenly by rows, and what they come to."""
    lines = ["| rows committed | resident MB |", "|---|---|"]
    chosen = [min(points, key=lambda point: abs(point[0] - rows * step / 20)) for step in range(1, 21)]
    lines += [f"| {done:,} | {memory:.0f} |" for done, memory in dict(chosen).items()]
    half = [memory for done, memory in points if done >= rows / 2]
    peak = max(memory for _, memory in points)
    lines.append(
        f"\nPeak {peak:.0f} MB; in the second half between {min(half):.0f} and {max(half):.0f} MB. "
        f"{rows:,} rows in {seconds:.0f} s ({rows / seconds:.0f}/s), {output.stat().st_size / 1e6:.0f} MB of "
        f"{output.suffix[1:]}."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
