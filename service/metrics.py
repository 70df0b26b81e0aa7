"""What Petalpaw adds to BentoML's /metrics: pictures by outcome, seconds by stage, batches, what runs the models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

from inference.classifier import Classifier
from service.call import Call, Stage

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Gauge

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Prometheus metrics; every method may be called from any thread."""

    def __init__(self, registry: "CollectorRegistry | None" = None) -> None:
        # BentoML must set prometheus_client up for several processes before it is imported.
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        registry = REGISTRY if registry is None else registry
        self._pictures = Counter(
            "petalpaw_pictures", "Pictures by outcome: ok or an error's code", ["model", "code"], registry=registry
        )
        self._stages = Histogram(
            "petalpaw_stage_seconds",
            "Seconds per stage; inference is per run, which is a batch with adaptive batching",
            ["model", "stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "petalpaw_batch_pictures", "Pictures per adaptive batch", ["model"], buckets=_BATCHES, registry=registry
        )
        self._runtimes = Gauge(
            "petalpaw_runtime_info",
            "1 for every version that is loaded, with what runs it and where; 0 once it is unloaded",
            ["model", "version", "runtime", "device", "execution_provider"],
            registry=registry,
            multiprocess_mode="livemax",
        )

    def loaded(self, classifier: Classifier) -> None:
        """A classifier is there: what runs it, and where."""
        self._runtime(classifier).inc()

    def unloaded(self, classifier: Classifier) -> None:
        """It is gone; its series stays, at 0."""
        self._runtime(classifier).dec()

    def _runtime(self, classifier: Classifier) -> "Gauge":
        artifact, runtime = classifier.artifact, classifier.runtime
        return self._runtimes.labels(
            artifact.name, artifact.version, runtime.name, runtime.device, runtime.execution_provider
        )

    def picture(self, model: str, code: str = "ok") -> None:
        """Count one picture's outcome."""
        self._pictures.labels(model, code).inc()

    def batch(self, model: str, size: int) -> None:
        """Note the size of one adaptive batch."""
        self._batches.labels(model).observe(size)

    @contextmanager
    def stage(self, model: str, stage: Stage, calls: Sequence[Call]) -> Iterator[None]:
        """Time what happens inside for the calls that it serves; a picture that fails counts too."""
        start = perf_counter()
        try:
            yield
        finally:
            self.spent(model, stage, perf_counter() - start, calls)

    def spent(self, model: str, stage: Stage, seconds: float, calls: Sequence[Call]) -> None:
        """Note a stage of these calls that was timed elsewhere."""
        self._stages.labels(model, stage).observe(seconds)
        for call in calls:
            call.spent.append((stage, seconds))
