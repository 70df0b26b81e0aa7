"""How pictures get their turn: a few streams, each decoding and classifying one picture at a time.

On a CPU that is all (`Streams`). A GPU works best on several pictures at once, so there the streams decode and
BentoML's adaptive batching gathers the crops (`BatchedStreams`). A bad picture never reaches a batch.

Requests are let in by `Admission`. Once nobody waits for a request any longer, what has not begun of it never does:
its pictures leave the queue, and between decoding and inference a thread asks again. What has begun stays in the queue
until its thread ends.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from time import perf_counter
from typing import NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from inference.budget import Budget
from inference.classifier import Classifier
from inference.errors import DeadlineExceeded, Overloaded, PetalpawError
from inference.memory import trim
from inference.prediction import Prediction
from inference.preprocessing import Crop
from inference.runtimes.base import Device
from service.admission import Admission, Rate
from service.body import Picture
from service.call import TOO_LATE, Call
from service.metrics import Metrics, Wait
from service.pixels import pixels
from service.settings import Settings
from service.turns import Turns

Outcome = Prediction | PetalpawError
LogitsRow = NDArray[np.float32]
"""float32, (classes,): the logits of one picture."""

Input = bytes | Crop | PetalpawError
"""A picture, a crop that is ready for the model, or why there is neither."""

T = TypeVar("T")

_LARGE_PIXELS = 30_000_000
"""A picture of more leaves memory behind that the C library would keep for the next such one."""


class Streams:
    """`count` pictures at a time, each run at batch 1, so that an answer never depends on its neighbours.

    `share` is how many pictures of one request may be under way at once: a request of many pictures takes turns
    with the others instead of standing in front of them.
    """

    def __init__(
        self, count: int, max_pixels: int, metrics: Metrics, max_queue_s: float = math.inf, lanes: int | None = None
    ) -> None:
        self.count = count
        self.share = count
        self.admission = Admission(count, max_queue_s, lanes)
        self._max_pixels = max_pixels
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(count, "stream")

    async def outcomes(
        self, call: Call, classifier: Classifier, pictures: Sequence[Picture], top_k: int
    ) -> list[Outcome]:
        """One outcome per picture, in order; a picture that fails is its own outcome and harms no other."""
        rows = await self.logits(call, classifier, [picture.data for picture in pictures])
        return [row if isinstance(row, PetalpawError) else classifier.predictions(row[None], top_k)[0] for row in rows]

    async def logits(
        self, call: Call, classifier: Classifier, inputs: Sequence[Input]
    ) -> list[LogitsRow | PetalpawError]:
        """Logits per input, in order, or why there are none.

        Raises Overloaded when the request is not let in.
        """
        self.admission.admit(call, len(inputs))
        turns = Turns(call, self.admission, len(inputs), self.share)
        name, digest = classifier.artifact.name, classifier.artifact.digest
        call.model = f"{name}/{classifier.artifact.version}"

        def ended(code: str) -> None:
            self._metrics.picture(name, code)
            call.outcomes[code] += 1

        async def one(each: Input, held: ExitStack, expected_s: float) -> LogitsRow | PetalpawError:
            """Its outcome, counted."""
            with held:
                held.enter_context(self._metrics.in_flight(name))
                async with turns.one(expected_s):
                    try:
                        if isinstance(each, PetalpawError):
                            raise each
                        held.enter_context(self.admission.turn(expected_s))
                        logits = await self._logits(call, classifier, each, held)
                    except PetalpawError as error:
                        ended(error.code)
                        # An outcome from now on: what it was raised through would keep it, and the picture, in a cycle.
                        return error.with_traceback(None)
            ended("ok")
            return logits

        with ExitStack() as request:
            # All are in the queue before anybody else is let in; what is cancelled before its task runs leaves it here.
            held = [request.enter_context(ExitStack()) for _ in inputs]
            expected = [self._queued(each, digest, its) for each, its in zip(inputs, held, strict=True)]
            if len(inputs) == 1:
                return [await one(inputs[0], held[0], expected[0])]  # the usual case needs no task of its own
            return await asyncio.gather(*map(one, inputs, held, expected))

    def loaded(self, classifier: Classifier) -> None:
        """Nothing to prepare."""

    def unloaded(self, classifier: Classifier) -> None:
        """Nothing to let go of."""

    def close(self) -> None:
        """Let go of the threads; work that has begun is finished."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _logits(self, call: Call, classifier: Classifier, data: bytes | Crop, held: ExitStack) -> LogitsRow:
        def alone() -> LogitsRow:
            crop = self._crop(call, classifier, data)
            call.check()
            stage = self._metrics.stage(classifier.artifact.name, "inference", [call])
            with stage, self.admission.inference(classifier.artifact.digest).timed():
                logits: LogitsRow = classifier.logits(crop[None])[0]
                return logits

        return await self._in_stream(call, classifier, held, alone)

    def _queued(self, each: Input, digest: str, held: ExitStack) -> float:
        """Put a picture into the queue until `held` ends: the seconds it is expected to add."""
        if isinstance(each, PetalpawError):
            return 0.0
        return held.enter_context(self.admission.queued(self._pixels(each), digest))

    def _pixels(self, data: bytes | Crop) -> int:
        """How many pixels will be decoded; too many are refused instead."""
        claimed = pixels(data) if isinstance(data, bytes) else 0
        return claimed if claimed <= self._max_pixels else 0

    def _crop(self, call: Call, classifier: Classifier, data: bytes | Crop) -> Crop:
        if isinstance(data, np.ndarray):
            return data
        name = classifier.artifact.name
        start = perf_counter()
        with self._metrics.stage(name, "decode", [call]):
            decoded = classifier.decode(data, self._max_pixels)
        with self._metrics.stage(name, "preprocess", [call]):
            crop = classifier.crop_of(decoded)
        count = decoded.size[0] * decoded.size[1]
        self.admission.decoded(count, perf_counter() - start, classifier.artifact.digest)
        if count > _LARGE_PIXELS:
            del decoded
            trim()
        return crop

    async def _in_stream(self, call: Call, classifier: Classifier, held: ExitStack, work: Callable[[], T]) -> T:
        """Do `work` on a thread. Once it has begun, nothing ends it, and the picture keeps what it holds until then."""
        wait = self._metrics.wait(classifier.artifact.name, call, "queue")

        def turn() -> T:
            wait.end()
            call.check()
            return work()

        loop = asyncio.get_running_loop()
        thread = self._pool.submit(turn)
        try:
            return await asyncio.wrap_future(thread, loop=loop)
        except asyncio.CancelledError:
            if not thread.cancelled():
                left = held.pop_all()
                thread.add_done_callback(lambda _: _soon(loop, left.close))
            raise
        finally:
            wait.end()


def _soon(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    """Let the loop do it, unless that is over: then nobody counts any longer."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(work)


class BatchedStreams(Streams):
    """Streams that decode, and batches of up to `max_batch_size` crops of one model, whichever requests they are of.

    A picture that would wait longer than `max_latency_ms` is refused with Overloaded.
    """

    def __init__(
        self,
        count: int,
        max_pixels: int,
        metrics: Metrics,
        max_queue_s: float = math.inf,
        *,
        max_batch_size: int,
        max_latency_ms: int,
    ) -> None:
        super().__init__(count, max_pixels, metrics, max_queue_s, lanes=1)
        self.share = count + max_batch_size
        self._max_batch_size = max_batch_size
        self._max_latency_ms = max_latency_ms
        self._batches: dict[Classifier, _Batches] = {}

    def unloaded(self, classifier: Classifier) -> None:
        """Let go of its batches, and of the classifier."""
        batches = self._batches.pop(classifier, None)
        if batches is not None:
            batches.close()

    def close(self) -> None:
        """As `Streams.close`; crops that wait for a batch are refused."""
        super().close()
        for batches in self._batches.values():
            batches.close()

    async def _logits(self, call: Call, classifier: Classifier, data: bytes | Crop, held: ExitStack) -> LogitsRow:
        crop = await self._in_stream(call, classifier, held, lambda: self._crop(call, classifier, data))
        if classifier not in self._batches:
            rate = self.admission.inference(classifier.artifact.digest)
            self._batches[classifier] = _Batches(
                classifier, self._max_batch_size, self._max_latency_ms, self._metrics, rate
            )
        return await self._batches[classifier].logits(call, crop)


class _Batches:
    """BentoML's adaptive batching around one classifier, one batch at a time."""

    def __init__(
        self, classifier: Classifier, max_batch_size: int, max_latency_ms: int, metrics: Metrics, rate: Rate
    ) -> None:
        from bentoml._internal.marshal.dispatcher import CorkDispatcher

        self._classifier = classifier
        self._metrics, self._rate = metrics, rate
        # A thread of its own: in the streams' queue a batch would wait behind pictures that are not decoded yet.
        self._thread = ThreadPoolExecutor(1, "batch")
        self._dispatcher: CorkDispatcher[tuple[Wait, Crop], LogitsRow | DeadlineExceeded] = CorkDispatcher(
            max_latency_ms, max_batch_size, fallback=self._overloaded, get_batch_size=lambda _: 1
        )
        self._dispatched = self._dispatcher(self._run)

    async def logits(self, call: Call, crop: Crop) -> LogitsRow:
        wait = self._metrics.wait(self._classifier.artifact.name, call, "batch")
        try:
            row = await self._dispatched((wait, crop))
        finally:
            wait.end()
        assert isinstance(row, np.ndarray)  # the dispatcher raises errors, and this fallback never returns
        return row

    def close(self) -> None:
        self._dispatcher.shutdown()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, batch: Sequence[tuple[Wait, Crop]]) -> Sequence[LogitsRow | DeadlineExceeded]:
        """Logits of the crops that somebody still waits for."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._together, batch)

    def _together(self, batch: Sequence[tuple[Wait, Crop]]) -> Sequence[LogitsRow | DeadlineExceeded]:
        name = self._classifier.artifact.name
        for wait, _ in batch:
            wait.end()
        awaited = [index for index, (wait, _) in enumerate(batch) if wait.call.remaining > 0]
        rows: list[LogitsRow | DeadlineExceeded] = [DeadlineExceeded(TOO_LATE)] * len(batch)
        if awaited:
            self._metrics.batch(name, len(awaited))
            stage = self._metrics.stage(name, "inference", [batch[index][0].call for index in awaited])
            with stage, self._rate.timed(len(awaited)):
                logits = self._classifier.logits(np.stack([batch[index][1] for index in awaited]))
            for index, row in zip(awaited, logits, strict=True):
                rows[index] = row
        return rows

    @staticmethod
    def _overloaded() -> NoReturn:
        task = asyncio.current_task()
        if task and task.cancelling():
            raise asyncio.CancelledError  # by its client or its deadline; the dispatcher takes both for its own doing
        raise Overloaded("the pictures before this one take longer than the service lets it wait; try again shortly")


def streams(settings: Settings, budget: Budget, device: Device, metrics: Metrics) -> Streams:
    """The streams that these settings ask for on this device."""
    metrics.streams(budget.streams)
    if not settings.batched(device):
        return Streams(budget.streams, settings.max_pixels, metrics, settings.max_queue_s)
    return BatchedStreams(
        budget.streams,
        settings.max_pixels,
        metrics,
        settings.max_queue_s,
        max_batch_size=settings.max_batch_size,
        max_latency_ms=settings.max_batch_latency_ms,
    )
