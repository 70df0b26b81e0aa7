"""The engine for one machine: threads that read ahead, threads that compute, and rows in the order of the inputs.

    source → read ahead (threads of their own) → decode → infer → row            on a CPU, batch 1 per stream
                                               → decode → crops → batch → rows   on CUDA

On a CPU parallel streams of batch 1 beat batches, and an answer then equals the service's bit for bit. A GPU needs
batches; they all have one size, the last one filled up, because every new size costs it preparation.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from inference.budget import Budget
from inference.classifier import Classifier
from inference.errors import ParameterInvalid
from inference.prediction import DEFAULT_TOP_K, Logits
from inference.preprocessing import MAX_PIXELS, Crop
from scoring.rows import Origin, Row
from scoring.sources import Item

READING_THREADS = 4
"""Threads that only read: a disk or network is waited for there while the streams compute."""

CUDA_BATCH = 32
_READ_AHEAD = 2 * READING_THREADS
"""Encoded pictures in memory beyond those that are being decoded."""

_WINDOW = 256
"""Inputs under way at most, done ones included: neighbours of a slow picture go on, and memory stays flat."""

Outcome = TypeVar("Outcome")
Read = Callable[[], bytes]
"""Gives the encoded picture, or raises what reading it raised."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture on its way to a batch: its row so far, and its crop unless it failed."""

    row: Row
    crop: Crop | None = None


class LocalEngine:
    """Scores with one classifier on this machine.

    `streams` pictures are decoded (and on a CPU inferred) at once, by default as many as the CPU budget allows. Load
    the classifier with `batch_sizes=(CUDA_BATCH,)` on a GPU, so that its first batch is not a slow one.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        streams: int | None = None,
        batch_size: int | None = None,
        top_k: int = DEFAULT_TOP_K,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Raises ParameterInvalid for a number below 1; `batch_size` is 1 on a CPU and CUDA_BATCH on a GPU."""
        self.classifier = classifier
        self.streams = Budget.plan().streams if streams is None else streams
        default_batch = CUDA_BATCH if classifier.runtime.device == "cuda" else 1
        self.batch_size = default_batch if batch_size is None else batch_size
        self.top_k = top_k
        self.max_pixels = max_pixels
        for name in ("streams", "batch_size", "top_k", "max_pixels"):
            if getattr(self, name) < 1:
                raise ParameterInvalid(f"{name} is {getattr(self, name)}, it must be 1 or more")
        self._origin = Origin.of(classifier)

    def rows(self, items: Iterable[Item], stop: threading.Event | None = None) -> Generator[Row]:
        """One row per input, in order; no picture, good or bad, harms another.

        Once `stop` is set, no further input is taken; those in hand still become rows.
        """
        stop = stop or threading.Event()
        window = max(_WINDOW, 4 * self.batch_size)
        if self.batch_size == 1:
            return in_order(self._answer, items, streams=self.streams, window=window, stop=stop)
        return self._in_batches(in_order(self._prepare, items, streams=self.streams, window=window, stop=stop))

    def _answer(self, item: Item, read: Read) -> Row:
        """From input to row in one thread. Never raises: an error becomes the row's."""
        row = Row(item.id, item.path, self._origin)
        try:
            row, crop = self._decoded(row, read())
            return self._filled(row, self.classifier.logits(crop[None]))
        except Exception as error:  # noqa: BLE001 – whatever one picture does, the others get their rows
            return row.failed(error)

    def _prepare(self, item: Item, read: Read) -> Prepared:
        """From input to crop in one thread. Never raises, as above."""
        row = Row(item.id, item.path, self._origin)
        try:
            return Prepared(*self._decoded(row, read()))
        except Exception as error:  # noqa: BLE001 – as above
            return Prepared(row.failed(error))

    def _decoded(self, row: Row, data: bytes) -> tuple[Row, Crop]:
        """The row with the picture's size, and the crop that the service would make of it. Raises ImageError."""
        preprocessing = self.classifier.artifact.manifest.preprocessing
        image = preprocessing.decode(data, self.max_pixels)
        return replace(row, width=image.width, height=image.height), preprocessing.crop_of(image)

    def _filled(self, row: Row, logits: Logits) -> Row:
        """The row with the answer from its logits, float32 (1, classes). Raises ArithmeticError on NaN or infinity."""
        if not np.isfinite(logits).all():
            raise ArithmeticError(f"the model's logits are not finite: {logits.ravel()[:8].tolist()}")
        return row.answered(self.classifier.predictions(logits, self.top_k)[0])

    def _in_batches(self, prepared: Generator[Prepared]) -> Generator[Row]:
        """Infer in batches of one size while the pool prepares what comes next."""
        held: list[Prepared] = []
        crops = 0
        for each in prepared:
            held.append(each)
            crops += each.crop is not None
            # Failures wait for their neighbours only up to a window, or a folder of them would fill memory.
            if crops == self.batch_size or len(held) == _WINDOW:
                yield from self._infer(held)
                held, crops = [], 0
        yield from self._infer(held)

    def _infer(self, held: list[Prepared]) -> list[Row]:
        """The rows of a batch, in order. Never raises."""
        crops = [each.crop for each in held if each.crop is not None]
        if not crops:
            return [each.row for each in held]
        try:
            logits = iter(self._batch_logits(crops))
        except Exception:  # noqa: BLE001 – one picture may be at fault: find it by trying each alone
            return [self._infer_alone(each) for each in held]
        return [each.row if each.crop is None else self._try_fill(each.row, next(logits)) for each in held]

    def _infer_alone(self, each: Prepared) -> Row:
        if each.crop is None:
            return each.row
        try:
            return self._filled(each.row, self._batch_logits([each.crop]))
        except Exception as error:  # noqa: BLE001 – as in _prepare
            return each.row.failed(error)

    def _try_fill(self, row: Row, logits: Logits) -> Row:
        try:
            return self._filled(row, logits[None])
        except ArithmeticError as error:
            return row.failed(error)

    def _batch_logits(self, crops: list[Crop]) -> Logits:
        """float32 (len(crops), classes), computed at exactly the batch size: the last crop fills up."""
        batch = np.stack(crops + [crops[-1]] * (self.batch_size - len(crops)))
        return self.classifier.logits(batch)[: len(crops)]


def in_order(
    work: Callable[[Item, Read], Outcome], items: Iterable[Item], *, streams: int, window: int, stop: threading.Event
) -> Generator[Outcome]:
    """`work(item, read)` for every item, on `streams` threads, yielded in the order of `items`.

    Other threads have usually read the item when `read()` is called. At most `window` items are under way, however
    many there are. After `stop` is set no further item is taken, and those that were, the few that are read ahead
    among them, are finished and yielded. So they are before an error of `items` itself is raised.
    """
    reading = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="read")
    computing = ThreadPoolExecutor(streams, thread_name_prefix="compute")
    room = threading.Semaphore(streams + _READ_AHEAD)
    under_way: deque[Future[Outcome]] = deque()
    source = _Guarded(items)
    try:
        for item in source:
            # Taken here, in the order of the items, so that the item that is waited for always has its place.
            room.acquire()
            outcome = computing.submit(work, item, reading.submit(item.read).result)
            outcome.add_done_callback(lambda _: room.release())
            under_way.append(outcome)
            while under_way and (under_way[0].done() or len(under_way) == window):
                yield under_way.popleft().result()
            if stop.is_set():
                break
        while under_way:
            yield under_way.popleft().result()
        if source.error is not None:
            raise source.error
    finally:
        computing.shutdown(cancel_futures=True)
        reading.shutdown(cancel_futures=True)


class _Guarded:
    """Items until the first error, which is kept for later."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            return next(self._items)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise StopIteration from error
