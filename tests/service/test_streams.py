"""Both ways to take turns, without HTTP: the same answers, and only one of them batches."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry

from inference.classifier import Classifier
from inference.errors import ImageTruncated, Overloaded, ParameterInvalid, PetalpawError
from inference.prediction import Logits, Prediction
from inference.preprocessing import Crop
from inference.repository import Artifact
from service.body import Picture
from service.call import Call, Ended
from service.metrics import Metrics
from service.statistics import Statistics
from service.streams import BatchedStreams, Outcome, Streams
from tests.conftest import BLUE, GREEN, RED

MAX_PIXELS = 10_000_000
LABELS = ("red", "green", "blue")


@pytest.fixture
def classifier(artifact: Artifact) -> Classifier:
    return Classifier.load(artifact, device="cpu")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture(params=["streams", "adaptive"])
def streams(request: pytest.FixtureRequest, registry: CollectorRegistry) -> Iterator[Streams]:
    metrics = Metrics(registry)
    made = (
        Streams(2, MAX_PIXELS, metrics)
        if request.param == "streams"
        else BatchedStreams(2, MAX_PIXELS, metrics, max_batch_size=4, max_latency_ms=10_000)
    )
    yield made
    made.close()


def names(outcomes: list[Outcome]) -> list[str]:
    return [outcome.label if isinstance(outcome, Prediction) else outcome.code for outcome in outcomes]


def test_every_request_gets_its_own_outcomes(
    streams: Streams, classifier: Classifier, picture: Callable[..., bytes], registry: CollectorRegistry
) -> None:
    good = [Picture(picture(colour, seed=seed)) for seed, colour in enumerate((RED, GREEN, BLUE))]
    request = [good[0], Picture(b"text"), good[1], Picture(ParameterInvalid("no base64")), good[2]]

    async def clients() -> list[list[Outcome]]:
        return await asyncio.gather(*(streams.outcomes(Call(), classifier, request, 3) for _ in range(16)))

    expected = ["red", "image_unsupported", "green", "parameter_invalid", "blue"]
    assert [names(outcomes) for outcomes in asyncio.run(clients())] == [expected] * 16
    counted = {
        code: registry.get_sample_value("petalpaw_pictures_total", {"model": "colours", "code": code})
        for code in ("ok", "image_unsupported", "parameter_invalid")
    }
    assert counted == {"ok": 48, "image_unsupported": 16, "parameter_invalid": 16}
    decoded = registry.get_sample_value("petalpaw_stage_seconds_count", {"model": "colours", "stage": "decode"})
    assert decoded == 64


def test_answers_equal_those_of_the_classifier(
    streams: Streams, classifier: Classifier, picture: Callable[..., bytes]
) -> None:
    pictures = [picture(seed=seed) for seed in range(9)]
    served = asyncio.run(streams.outcomes(Call(), classifier, [Picture(data) for data in pictures], 3))
    for ours, theirs in zip(served, classifier.classify(pictures, 3), strict=True):
        assert isinstance(ours, Prediction)
        assert isinstance(theirs, Prediction)
        assert ours.label == theirs.label
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-6)


class _Watched(Classifier):
    """Notes the batch sizes; fails on request."""

    def __init__(self, inner: Classifier) -> None:
        super().__init__(inner.artifact, inner.runtime)
        self.sizes: list[int] = []
        self.failing = False

    def logits(self, crops: Crop) -> Logits:
        self.sizes.append(len(crops))
        if self.failing:
            raise RuntimeError("the device is gone")
        return super().logits(crops)


def test_streams_never_batch_and_adaptive_does(classifier: Classifier, picture: Callable[..., bytes]) -> None:
    request = [Picture(picture(seed=seed)) for seed in range(40)]
    alone, together = _Watched(classifier), _Watched(classifier)
    asyncio.run(Streams(2, MAX_PIXELS, Metrics(CollectorRegistry())).outcomes(Call(), alone, request, 1))
    batched = BatchedStreams(4, MAX_PIXELS, Metrics(CollectorRegistry()), max_batch_size=4, max_latency_ms=10_000)
    asyncio.run(batched.outcomes(Call(), together, request, 1))
    assert alone.sizes == [1] * 40
    assert sum(together.sizes) == 40
    assert 1 < max(together.sizes) <= 4


def test_a_picture_waits_once_in_metrics_and_statistics(
    streams: Streams, classifier: Classifier, picture: Callable[..., bytes], registry: CollectorRegistry
) -> None:
    call = Call()
    asyncio.run(streams.outcomes(call, classifier, [Picture(picture())] * 5, 1))

    def observed(stage: str, what: str) -> float | None:
        return registry.get_sample_value(f"petalpaw_stage_seconds_{what}", {"model": "colours", "stage": stage})

    batched = isinstance(streams, BatchedStreams)
    assert (observed("queue", "count"), observed("batch", "count")) == (5, 5 if batched else None)
    waits = [spent.seconds for spent in call.spent if spent.stage in ("queue", "batch")]
    assert (observed("queue", "sum") or 0) + (observed("batch", "sum") or 0) == pytest.approx(sum(waits))
    statistics = Statistics()
    statistics.ended(Ended(call, "POST", "/classify", "/classify", 200, "ok", start=0, seconds=1))
    figures = statistics.of("colours/1")
    assert (figures.answered, figures.waited.count, figures.inferred.count) == (5, 5, 5)
    assert figures.waited.ns == pytest.approx(sum(waits) * 1e9, abs=10)


def test_a_bad_picture_never_reaches_a_batch(classifier: Classifier, picture: Callable[..., bytes]) -> None:
    watched = _Watched(classifier)
    good = picture(GREEN)
    request = [Picture(good if number % 2 else good[:-200]) for number in range(20)]
    batched = BatchedStreams(4, MAX_PIXELS, Metrics(CollectorRegistry()), max_batch_size=4, max_latency_ms=10_000)
    outcomes = asyncio.run(batched.outcomes(Call(), watched, request, 1))
    assert names(outcomes) == ["image_truncated", "green"] * 10
    assert isinstance(outcomes[0], ImageTruncated)
    assert sum(watched.sizes) == 10


def test_a_failing_device_is_no_outcome_of_a_picture(
    streams: Streams, classifier: Classifier, picture: Callable[..., bytes]
) -> None:
    watched = _Watched(classifier)
    watched.failing = True
    with pytest.raises(RuntimeError, match="the device is gone"):
        asyncio.run(streams.outcomes(Call(), watched, [Picture(picture())], 1))


def test_pictures_that_would_wait_too_long_are_refused(classifier: Classifier, picture: Callable[..., bytes]) -> None:
    class Slow(_Watched):
        def logits(self, crops: Crop) -> Logits:
            import time

            time.sleep(0.15)
            return super().logits(crops)

    batched = BatchedStreams(4, MAX_PIXELS, Metrics(CollectorRegistry()), max_batch_size=1, max_latency_ms=100)

    async def clients() -> list[list[Outcome]]:
        slow = Slow(classifier)
        requests = [batched.outcomes(Call(), slow, [Picture(picture())], 1) for _ in range(30)]
        return await asyncio.gather(*requests)

    outcomes = [outcomes[0] for outcomes in asyncio.run(clients())]
    refused = [outcome for outcome in outcomes if isinstance(outcome, PetalpawError)]
    assert refused
    assert all(isinstance(outcome, Overloaded) and outcome.retry_after >= 1 for outcome in refused)
    assert len(refused) < 30


def test_a_long_request_takes_turns_with_a_short_one(classifier: Classifier, picture: Callable[..., bytes]) -> None:
    order: list[str] = []
    streams = Streams(1, MAX_PIXELS, Metrics(CollectorRegistry()))

    async def ask(name: str, count: int) -> None:
        await streams.outcomes(Call(), classifier, [Picture(picture())] * count, 1)
        order.append(name)

    async def clients() -> None:
        await asyncio.gather(ask("long", 30), ask("short", 1))

    asyncio.run(clients())
    assert order == ["short", "long"]
