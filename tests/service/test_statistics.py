"""Sums per version, fed as the streams and the telemetry feed them."""

import pytest
from prometheus_client import CollectorRegistry

from service.call import Call, Ended, Spent
from service.metrics import Metrics
from service.statistics import Figures


def ended(call: Call, status: int) -> Ended:
    return Ended(call, "POST", "/classify", "/classify", status, "ok", start=0.0, seconds=0.5)


def test_a_batch_is_one_run_and_several_pictures() -> None:
    metrics = Metrics(CollectorRegistry())
    first, second = Call(model="colours/2"), Call(model="colours/2")
    metrics.spent("colours", Spent("queue", 0, 0.25), [first])
    metrics.spent("colours", Spent("decode", 0, 0.125), [first])
    metrics.spent("colours", Spent("preprocess", 0, 0.125), [first])
    metrics.spent("colours", Spent("inference", 0, 1.0), [first, first, second])
    metrics.spent("colours", Spent("inference", 0, 0.5), [second])
    first.outcomes.update(ok=2)
    second.outcomes.update(ok=1, image_empty=1)
    metrics.request(ended(first, 200))
    metrics.request(ended(second, 422))
    figures = metrics.statistics.of("colours/2")
    assert figures.answered == 3
    assert {size: (total.count, total.ns) for size, total in figures.runs.items()} == {
        3: (1, 1_000_000_000),
        1: (1, 500_000_000),
    }
    assert (figures.inferred.count, figures.inferred.ns) == (4, 3_500_000_000)
    assert (figures.waited.count, figures.prepared.count, figures.prepared.ns) == (1, 1, 250_000_000)
    assert (figures.succeeded.count, figures.failed.count) == (1, 1)
    assert figures.last_request_ms > 0


@pytest.mark.parametrize("call", [Call(), Call(model="tones/1")])
def test_versions_are_apart_and_requests_without_a_model_do_not_count(call: Call) -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.request(ended(call, 404))
    assert metrics.statistics.of("colours/2") == Figures()
