"""The in-process limit: as many threads as cores, each decoding and inferring, with no HTTP around them.

python limit.py REPOSITORY MODEL SECONDS STREAMS FOLDER    # a folder of *.jpg files
"""

import json
import sys
import threading
import time
from pathlib import Path

from inference.classifier import Classifier
from inference.repository import Repository


def main() -> None:
    repository, model, seconds, streams, folder = sys.argv[1:6]
    classifier = Classifier.load(Repository(Path(repository)).open(model), device="cpu")
    pictures = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    latencies: list[float] = []
    stop = threading.Event()

    def stream(first: int) -> None:
        index = first
        while not stop.is_set():
            start = time.perf_counter()
            classifier.classify([pictures[index % len(pictures)]])
            latencies.append(time.perf_counter() - start)
            index += 1

    classifier.classify(pictures[:4])
    threads = [threading.Thread(target=stream, args=(7 * number,)) for number in range(int(streams))]
    cpu, began = time.process_time(), time.perf_counter()
    for thread in threads:
        thread.start()
    time.sleep(float(seconds))
    stop.set()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - began
    ordered = sorted(latencies)
    figures = {f"p{cut}": 1e3 * ordered[min(len(ordered) - 1, len(ordered) * cut // 100)] for cut in (50, 95, 99)}
    rate = len(latencies) / elapsed
    print(json.dumps({"rate": rate, **figures, "cpu_ms": 1e3 * (time.process_time() - cpu) / len(latencies)}))


if __name__ == "__main__":
    main()
