"""A process that holds one entrant, so that nobody's thread pools disturb another's; it sleeps until it is asked."""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from entrants import Run, Shape, entrants, use_threads

from inference.prediction import Logits
from inference.preprocessing import Crop, Preprocessing

Kind = Literal["model", "pipeline"]


@dataclass(frozen=True)
class Cell:
    """What is timed: the model alone, or decoding, preprocessing and the model."""

    network: str
    kind: Kind
    shape: Shape
    batch: int


class Worker:
    """The asking side."""

    def __init__(self, entrant: str, folder: Path) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, entrant, folder), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._connection.close()
        self._process.join()

    def rate(self, cell: Cell, seconds: float) -> float:
        """Images per second over that time, at least one call per stream. Raises RuntimeError with its words."""
        return float(self._ask("rate", cell, seconds))

    def logits(self, network: str, count: int) -> Logits:
        """Its answers to the first photos, in batches of 16 by one thread."""
        return self._ask("logits", network, count)

    def _ask(self, *question: object) -> Any:
        self._connection.send(question)
        fine, answer = self._connection.recv()
        if not fine:
            raise RuntimeError(answer)
        return answer


def _serve(connection: Connection, entrant: str, folder: Path) -> None:
    bench = Bench(entrant, folder)
    while True:
        try:
            verb, *details = connection.recv()
        except EOFError:
            return
        try:
            connection.send((True, getattr(bench, verb)(*details)))
        except Exception as error:  # noqa: BLE001 – a runtime that refuses is a result
            connection.send((False, f"{type(error).__name__}: {error}"))


class Bench:
    """The working side: what is loaded stays."""

    def __init__(self, entrant: str, folder: Path) -> None:
        self.entrant = entrant
        self.crops = np.load(folder / "photos.npy")
        self.pictures = [path.read_bytes() for path in sorted((folder / "pictures").iterdir())]
        self.loaded: Callable[[str, Shape], Run] = cache(lambda *what: entrants()[entrant](folder, *what))

    def rate(self, cell: Cell, seconds: float) -> float:
        run = self.loaded(cell.network, cell.shape)
        use_threads(cell.shape.threads)

        def stream(_: int) -> float:
            with ThreadPoolExecutor(cell.shape.threads) as decoders:
                feed = self._feed(cell, decoders)
                images, began, elapsed = 0, time.perf_counter(), 0.0
                while elapsed < seconds or not images:
                    images += len(run(next(feed)))
                    elapsed = time.perf_counter() - began
            return images / elapsed

        with ThreadPoolExecutor(cell.shape.streams) as streams:
            return sum(streams.map(stream, range(cell.shape.streams)))

    def logits(self, network: str, count: int) -> Logits:
        run = self.loaded(network, Shape(1, 1))
        use_threads(1)
        return np.concatenate([run(self.crops[start : min(start + 16, count)]) for start in range(0, count, 16)])

    def _feed(self, cell: Cell, decoders: ThreadPoolExecutor) -> Iterator[Crop]:
        """Batches without end: the same crops for the model alone, newly decoded pictures in turn for the pipeline."""
        if cell.kind == "model":
            yield from itertools.repeat(np.resize(self.crops, (cell.batch, *self.crops.shape[1:])))
        preprocessing, pictures = Preprocessing(), itertools.cycle(self.pictures)
        each = decoders.map if cell.shape.threads > 1 else map
        while True:
            batch = list(itertools.islice(pictures, cell.batch))
            yield _on_gpu(batch) if "nvJPEG" in self.entrant else np.stack(list(each(preprocessing, batch)))


def _on_gpu(pictures: list[bytes]) -> Crop:
    from gpu import decoded

    return decoded(pictures)
