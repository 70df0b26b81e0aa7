"""A regression check: throughput of the running service as a share of what the same process does without HTTP.

    .venv/bin/python benchmarks/gate.py                    # make gate

Makes its own pictures, starts `petalpaw serve` once, and lets the service (wrk, 16 clients) and the in-process limit
take turns. The median ratio of the rounds is compared with a floor well below what an idle machine shows, so that only
a clear loss fails: exit status 1. A machine that is busy all the while slows both; one that is busy now and then spoils
a round, and the median leaves it out.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
SERVING = ROOT / "benchmarks" / "serving"
FLOOR = 0.6
CLIENTS = 16

sys.path.insert(0, str(SERVING))

from contenders import CONTENDERS  # noqa: E402
from load import Bodies, closed  # noqa: E402
from processes import free_port, ready, stop  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--floor", type=float, default=FLOOR)
    arguments = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is missing; install it (Debian: apt-get install wrk)")
    with tempfile.TemporaryDirectory() as folder:
        ratios = measured(Path(folder), arguments.rounds, arguments.seconds)
    ratio = statistics.median(ratios)
    print(f"service / in-process limit: {ratio:.2f} (rounds {', '.join(f'{each:.2f}' for each in ratios)})")
    sys.exit(f"below {arguments.floor}: a request costs more than it did" if ratio < arguments.floor else 0)


def measured(folder: Path, rounds: int, seconds: float) -> list[float]:
    """The ratio of each round."""
    (folder / "pictures").mkdir()
    drawn = [picture(seed) for seed in range(8)]
    for index, data in enumerate(drawn):
        (folder / "pictures" / f"{index}.jpg").write_bytes(data)
    contender, port = CONTENDERS["petalpaw"], free_port()
    os.environ["BENCHMARK_REPOSITORY"] = str(ROOT / "models")
    server = contender.started(Path(sys.executable), port, folder, folder / "log", ROOT / "models" / "flowers" / "1")
    try:
        ready(server, f"http://127.0.0.1:{port}{contender.ready}")
        bodies = Bodies(folder / "bodies", [contender.body(data) for data in drawn])
        url = f"http://127.0.0.1:{port}{contender.path}"
        closed(url, bodies, CLIENTS, 2)
        return [closed(url, bodies, CLIENTS, seconds).rate / limit(folder, seconds) for _ in range(rounds)]
    finally:
        stop(server)


def limit(folder: Path, seconds: float) -> float:
    """Pictures per second in process, with a stream per core."""
    streams = str(len(os.sched_getaffinity(0)))
    command = [sys.executable, SERVING / "limit.py", ROOT / "models", "flowers", str(seconds), streams]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run([*command, folder / "pictures"], capture_output=True, check=True, env=environment).stdout
    return float(json.loads(said)["rate"])


def picture(seed: int) -> bytes:
    """A JPEG of 500 × 415 pixels and about 40 KB: smooth shapes and some grain."""
    dice = np.random.default_rng(seed)
    coarse = Image.fromarray(dice.integers(0, 256, (9, 11, 3), dtype=np.uint8)).resize(
        (500, 415), Image.Resampling.BICUBIC
    )
    grain = dice.normal(0, 9, (415, 500, 1))
    pixels = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=70)
    return target.getvalue()


if __name__ == "__main__":
    main()
