"""The numbers at /metrics: requests, pictures, stages, batches, queue, models, process; docs/metrics.md lists them.

BentoML's own HTTP metrics are off: they make a time series of every path that a stranger asks for.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response

from service.call import Call, Ended, Spent, Stage
from service.statistics import Statistics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from service.catalog import Entry

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Where processes share what they count; BentoML's supervisor sets and empties it."""

router = APIRouter()


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """All numbers in Prometheus' text format."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    registry = _scraped(_now(request.app.state, await request.app.state.catalog.listed()))
    # It reads files and may take milliseconds.
    return Response(await run_in_threadpool(generate_latest, registry), media_type=CONTENT_TYPE_LATEST)


class Metrics:
    """What is counted as it happens; every method may be called from any thread."""

    def __init__(self, registry: "CollectorRegistry | None" = None) -> None:
        # BentoML must set prometheus_client up for several processes before it is imported.
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        registry = REGISTRY if registry is None else registry
        self.statistics = Statistics()
        self._requests = Counter(
            "petalpaw_requests",
            "Requests by route template, method, status, and code: ok or that of the problem",
            ["route", "method", "status", "code"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "petalpaw_request_seconds",
            "Seconds from the head of a request to the end of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._pictures = Counter(
            "petalpaw_pictures", "Pictures by outcome: ok or an error's code", ["model", "code"], registry=registry
        )
        self._in_flight = Gauge(
            "petalpaw_pictures_in_flight",
            "Pictures that wait or are worked on",
            ["model"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._queue = Gauge(
            "petalpaw_queue_pictures",
            "Pictures that wait for a stream or for a batch",
            ["model"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._streams = Gauge(
            "petalpaw_streams",
            "Pictures that can be worked on at the same time",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._stages = Histogram(
            "petalpaw_stage_seconds",
            "Seconds per stage: read per request, decode, preprocess and queue per picture, inference per run; with "
            "adaptive batching a run is of a batch, and batch is a picture's wait for it",
            ["model", "stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "petalpaw_batch_pictures", "Pictures per adaptive batch", ["model"], buckets=_BATCHES, registry=registry
        )

    def request(self, ended: Ended) -> None:
        """Count one request that has been answered, or left."""
        self._requests.labels(ended.route, ended.method, ended.status, ended.code).inc()
        self._request_seconds.labels(ended.route).observe(ended.seconds)
        self.statistics.ended(ended)
        # Which model a body was for is known only once it has been read.
        model = (ended.call.model or "").partition("/")[0]
        for spent in list(ended.call.spent):
            if spent.stage == "read":
                self.spent(model, spent)

    def picture(self, model: str, code: str = "ok") -> None:
        """Count one picture's outcome."""
        self._pictures.labels(model, code).inc()

    def streams(self, count: int) -> None:
        """Note how many pictures can be worked on at the same time."""
        self._streams.set(count)

    def batch(self, model: str, size: int) -> None:
        """Note the size of one adaptive batch."""
        self._batches.labels(model).observe(size)

    @contextmanager
    def in_flight(self, model: str) -> Iterator[None]:
        """Count a picture as under way while what is inside runs."""
        with self._in_flight.labels(model).track_inprogress():
            yield

    def wait(self, model: str, call: Call, stage: Literal["queue", "batch"]) -> "Wait":
        """A picture begins to wait for its turn in the queue, or for its batch."""
        self._queue.labels(model).inc()
        return Wait(self, model, call, stage)

    @contextmanager
    def stage(self, model: str, stage: Stage, calls: Sequence[Call]) -> Iterator[None]:
        """Time what happens inside for the calls that it serves; a picture that fails counts too."""
        start = perf_counter()
        try:
            yield
        finally:
            self.spent(model, Spent(stage, start, perf_counter() - start), calls)

    def spent(self, model: str, spent: Spent, calls: Sequence[Call] = ()) -> None:
        """Note a stage that has ended."""
        self._stages.labels(model, spent.stage).observe(spent.seconds)
        for call in calls:
            call.spent.append(spent)
        if spent.stage == "inference" and calls and calls[0].model:
            self.statistics.ran(calls[0].model, len(calls), spent.seconds)

    def _waited(self, model: str) -> None:
        self._queue.labels(model).dec()


class Wait:
    """One picture's wait for its turn, until its first `end`."""

    def __init__(self, metrics: Metrics, model: str, call: Call, stage: Stage) -> None:
        self.call = call
        self._stage = stage
        self._metrics, self._model, self._start = metrics, model, perf_counter()
        # Of two threads that end it at once, one finds the list empty.
        self._open = [True]

    def end(self) -> None:
        """The turn has come, or will never."""
        try:
            self._open.pop()
        except IndexError:
            return
        self._metrics._waited(self._model)
        spent = Spent(self._stage, self._start, perf_counter() - self._start)
        self._metrics.spent(self._model, spent, [self.call])


def forget_ended_processes() -> None:
    """Remove the gauges of processes that ended without saying so; their counters stay."""
    from prometheus_client import multiprocess

    shared = os.environ.get(_SHARED)
    if shared is None:
        return
    for pid in {int(file.stem.rpartition("_")[2]) for file in Path(shared).glob("gauge_live*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _now(state: State, entries: list["Entry"]) -> list["Metric"]:
    """What is read only when somebody asks: so a model that was unloaded leaves no series behind."""
    from prometheus_client.core import GaugeMetricFamily

    queue = GaugeMetricFamily(
        "petalpaw_queue_seconds",
        "Seconds of expected work let in and not done; admission is by this, of a single picture by what has its turn",
        state.streams.admission.wait_s,
    )
    info = GaugeMetricFamily(
        "petalpaw_model_info",
        "1 for every version that is served: its artifact, and what runs it where",
        labels=["model", "version", "digest", "runtime", "device", "execution_provider"],
    )
    for classifier in state.catalog.served:
        artifact, runtime = classifier.artifact, classifier.runtime
        identity = [artifact.name, artifact.version, artifact.digest]
        info.add_metric([*identity, runtime.name, runtime.device, runtime.execution_provider], 1)
    states = GaugeMetricFamily(
        "petalpaw_model_state",
        "1 for the state that each version is in: READY, LOADING or UNAVAILABLE; also REFUSED if loading failed",
        labels=["model", "version", "state"],
    )
    for entry in entries:
        states.add_metric([entry.name, entry.version, entry.state], 1)
        if entry.refused:
            states.add_metric([entry.name, entry.version, "REFUSED"], 1)
    return [queue, info, states]


class _Collected:
    """Metrics that are there already, as a registry wants them."""

    def __init__(self, families: list["Metric"]) -> None:
        self._families = families

    def collect(self) -> list["Metric"]:
        return self._families


def _scraped(now: list["Metric"]) -> "CollectorRegistry":
    """A registry of what all processes have counted, of this one's resources, and of `now`."""
    from prometheus_client import REGISTRY, CollectorRegistry, ProcessCollector
    from prometheus_client.multiprocess import MultiProcessCollector

    if _SHARED not in os.environ:
        return REGISTRY  # in a test, or under a server of one process that is not BentoML's
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    ProcessCollector(registry=registry)
    registry.register(_Collected(now))
    return registry
