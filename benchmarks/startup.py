"""Command to ready, where that time goes, and the memory of all processes together.

    .venv/bin/python benchmarks/startup.py --rounds 5 --photo cat.jpg

Starts `petalpaw serve` on a free loopback port as often as asked, waits for /readyz, sends one photo to every model,
reads the proportional set size (PSS) of the whole process tree from /proc, and stops it again. Then it times the
imports alone, each in a fresh interpreter. Medians of the rounds are printed as Markdown.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

IMPORTS = {
    "the interpreter": "",
    "bentoml": "import bentoml",
    "bentoml's server": "import bentoml, _bentoml_impl.server.app, uvicorn",
    "service.app (with the two above, FastAPI, ONNX Runtime)": "import _bentoml_impl.server.app, uvicorn, service.app",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pss_mb(processes: list[psutil.Process]) -> float:
    total = 0
    for process in processes:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


def one_round(photo: bytes) -> tuple[float, float, float, int]:
    """Seconds to ready, PSS in MB when ready and after one request per model, number of processes."""
    port = free_port()
    began = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "petalpaw", "serve", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            ready = began
            while time.perf_counter() - began < 60:
                try:
                    if client.get("/readyz").status_code == 200:
                        ready = time.perf_counter()
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.01)
            else:
                raise SystemExit("the service was not ready within 60 s; start it by hand to see why")
            root = psutil.Process(server.pid)
            tree = [root, *root.children(recursive=True)]
            at_ready = pss_mb(tree)
            for model in client.get("/models").json()["models"]:
                client.post(
                    "/classify", params={"model": model["name"]}, content=photo, headers={"content-type": "image/jpeg"}
                ).raise_for_status()
            return ready - began, at_ready, pss_mb(tree), len(tree)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def import_seconds(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photo", type=Path, required=True)
    options = parser.parse_args()
    photo = options.photo.read_bytes()
    rounds = [one_round(photo) for _ in range(options.rounds)]
    ready, at_ready, after, processes = (statistics.median(column) for column in zip(*rounds, strict=True))
    print("| what | median | rounds |\n|---|---|---|")
    print(f"| command to ready | {ready:.2f} s | {', '.join(f'{each[0]:.2f}' for each in rounds)} |")
    print(f"| PSS of all {processes:.0f} processes, ready | {at_ready:.0f} MB | |")
    print(f"| PSS after a request to every model | {after:.0f} MB | |")
    for what, statement in IMPORTS.items():
        taken = [import_seconds(statement) for _ in range(options.rounds)]
        print(f"| import alone: {what} | {statistics.median(taken):.2f} s | {', '.join(f'{t:.2f}' for t in taken)} |")


if __name__ == "__main__":
    main()
