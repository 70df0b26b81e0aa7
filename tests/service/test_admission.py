"""The bounded queue and what is never begun, without HTTP."""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep

import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from inference.classifier import Classifier
from inference.errors import DeadlineExceeded, ImageEmpty, Overloaded, PetalpawError
from inference.prediction import Logits
from inference.preprocessing import Crop, Decoded
from inference.repository import Artifact
from service.admission import Admission, Rate
from service.call import Call
from service.metrics import Metrics
from service.streams import BatchedStreams, Streams
from service.turns import Turns

MAX_PIXELS = 10_000_000


class Held(Classifier):
    """One that infers only while it is let, and counts what ran."""

    def __init__(self, inner: Classifier) -> None:
        super().__init__(inner.artifact, inner.runtime)
        self.go = threading.Event()
        self.decoded = self.inferred = 0

    def decode(self, data: bytes, max_pixels: int = MAX_PIXELS) -> Decoded:
        self.decoded += 1
        return super().decode(data, max_pixels)

    def logits(self, crops: Crop) -> Logits:
        self.go.wait(10)
        self.inferred += len(crops)
        return super().logits(crops)


@pytest.fixture
def held(artifact: Artifact) -> Held:
    return Held(Classifier.load(artifact, device="cpu"))


def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def call(seconds: float = 60) -> Call:
    return Call(deadline=monotonic() + seconds)


@contextmanager
def under_way(admission: Admission, pixels: int) -> Iterator[None]:
    """A picture that has its turn."""
    with admission.queued(pixels, "m") as expected_s, admission.turn(expected_s):
        yield


def test_a_rate_is_learnt_from_what_work_took_and_forgets() -> None:
    rate = Rate((1.0, 1.0))
    for _ in range(300):
        with rate.timed(10):
            pass
    assert rate.seconds() < 1e-3
    with rate.timed():
        sleep(0.05)
    assert 1e-5 < rate.seconds() < 0.05
    with pytest.raises(ZeroDivisionError), rate.timed():
        raise ZeroDivisionError
    assert rate.seconds() < 0.05


def test_the_queue_is_counted_in_seconds_of_all_streams_together() -> None:
    one, two, device = Admission(1), Admission(2), Admission(2, lanes=1)
    million = 950_000  # and 50,000 for what a picture of any size costs
    with one.queued(million, "m"), two.queued(million, "m"), device.queued(million, "m"):
        assert one.wait_s == pytest.approx(0.03)  # the guesses: 0.02 s per million pixels, 0.01 s per run
        assert two.wait_s == pytest.approx(0.015)
        assert device.wait_s == pytest.approx(0.02)
        with one.queued(0, "m"):
            assert one.wait_s == pytest.approx(0.04)
    assert (one.wait_s, one.pictures) == (0, 0)


def test_models_have_rates_of_their_own() -> None:
    admission = Admission(1)
    for _ in range(300):
        with admission.inference("fast").timed():
            pass
    with admission.queued(0, "fast"):
        assert admission.wait_s < 0.001
        with admission.queued(0, "unknown"):
            assert admission.wait_s == pytest.approx(0.01, rel=0.1)


def test_drafts_of_one_model_do_not_make_another_look_fast() -> None:
    admission = Admission(1)
    for _ in range(100):
        admission.decoded(12_000_000, 0.02, "draft")
        admission.decoded(12_000_000, 0.2, "whole")
    with admission.queued(12_000_000, "draft"):
        assert admission.wait_s < 0.05
        with admission.queued(12_000_000, "whole"):
            assert 0.15 < admission.wait_s < 0.3


def test_tiny_pictures_do_not_make_a_large_one_look_endless() -> None:
    admission = Admission(1)
    for _ in range(100):
        admission.decoded(2000, 0.001, "m")
    with admission.queued(50_000_000, "m"):
        assert 0.5 < admission.wait_s < 5


def test_huge_plain_pictures_do_not_speak_for_photos() -> None:
    admission = Admission(1)
    for _ in range(100):
        admission.decoded(2_000_000, 0.04, "m")
    for _ in range(8):
        admission.decoded(81_000_000, 0.3, "m")
    with admission.queued(2_000_000, "m"):
        assert 0.04 / 3 < admission.wait_s < 0.04 * 3


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "TIFF"])
def test_the_rate_is_fed_with_the_picture_that_came_out(held: Held, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held.go.set()
    streams = Streams(1, MAX_PIXELS, metrics())
    monkeypatch.setattr("service.streams.pixels", lambda _: 1)  # whatever the header made believe
    encoded = io.BytesIO()
    Image.new("RGB", (1500, 1500), (9, 9, 9)).save(encoded, kind)
    seconds = []

    async def clients() -> None:
        for _ in range(20):
            one = call()
            await streams.logits(one, held, [encoded.getvalue()])
            seconds.append(sum(spent.seconds for spent in one.spent if spent.stage in ("decode", "preprocess")))

    asyncio.run(clients())
    with streams.admission.queued(1500 * 1500, "m"):
        assert streams.admission.wait_s < 3 * max(seconds) + 0.1


def test_nobody_is_sent_away_for_long() -> None:
    admission = Admission(1, max_queue_s=1000)
    endless = 2_000_000_000_000
    with under_way(admission, endless), under_way(admission, 2_000_000), pytest.raises(Overloaded) as caught:
        admission.admit(call())
    assert caught.value.retry_after == 30


def test_what_is_abandoned_stays_in_the_queue_until_its_thread_ends(held: Held, picture: Callable[..., bytes]) -> None:
    streams = Streams(1, MAX_PIXELS, metrics())

    async def client() -> None:
        request = asyncio.create_task(streams.logits(call(), held, [picture()]))
        while not held.decoded:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert streams.admission.pictures == 1
        assert streams.admission.wait_s > 0
        held.go.set()
        async with asyncio.timeout(5):
            while streams.admission.pictures:
                await asyncio.sleep(0.01)

    asyncio.run(client())


def test_one_huge_picture_does_not_fill_the_queue_of_two_streams() -> None:
    admission = Admission(2, max_queue_s=1)
    huge = 2_000_000_000
    with under_way(admission, huge):
        admission.admit(call())
        with under_way(admission, huge):
            admission.admit(call())
            with under_way(admission, 1), pytest.raises(Overloaded):
                admission.admit(call())


def test_a_full_queue_refuses_and_says_when_it_will_be_empty() -> None:
    admission = Admission(1, max_queue_s=1.5)
    with under_way(admission, 50_000_000):
        admission.admit(call())  # 1.01 s
        with under_way(admission, 100_000_000), pytest.raises(Overloaded, match=r"2\.5 s long, 1\.5 s are") as caught:
            admission.admit(call())
    assert caught.value.retry_after == 3
    admission.admit(call())


def test_who_cannot_be_answered_in_time_is_refused_at_once() -> None:
    admission = Admission(1, max_queue_s=60)
    with under_way(admission, 50_000_000):
        admission.admit(call(2))
        with pytest.raises(Overloaded, match=r"this request has 0\.5 s left"):
            admission.admit(call(0.5))
        with pytest.raises(DeadlineExceeded):
            admission.admit(call(-1))


def test_the_queue_of_the_streams_is_bounded(held: Held, picture: Callable[..., bytes]) -> None:
    streams = Streams(2, MAX_PIXELS, metrics(), max_queue_s=0.1)

    async def clients() -> list[object]:
        requests = []
        for _ in range(60):
            requests.append(asyncio.create_task(streams.logits(call(), held, [picture()])))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        held.go.set()
        return await asyncio.gather(*requests, return_exceptions=True)

    outcomes = asyncio.run(clients())
    refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
    answered = [outcome for outcome in outcomes if isinstance(outcome, list)]
    assert len(refused) + len(answered) == 60
    assert 2 < len(answered) < 40  # each is 0.011 s of guessed work, shared by two streams
    assert held.decoded == held.inferred == len(answered)
    assert all(refusal.retry_after == 1 for refusal in refused)
    assert (streams.admission.wait_s, streams.admission.pictures) == (0, 0)


def test_a_request_of_many_pictures_takes_few_turns_at_once(held: Held, picture: Callable[..., bytes]) -> None:
    streams = Streams(2, MAX_PIXELS, metrics(), max_queue_s=1)

    async def clients() -> None:
        many = asyncio.create_task(streams.logits(call(), held, [picture()] * 50))
        await asyncio.sleep(0.02)
        assert streams.admission.pictures == 2
        single = asyncio.create_task(streams.logits(call(), held, [picture()]))
        await asyncio.sleep(0.02)
        assert streams.admission.pictures == 3
        held.go.set()
        await asyncio.gather(many, single)

    asyncio.run(clients())


def test_all_pictures_of_a_request_count_from_its_admission(held: Held, picture: Callable[..., bytes]) -> None:
    streams = Streams(2, MAX_PIXELS, metrics(), max_queue_s=0.1)

    async def clients() -> list[object]:
        # 0.27 s of guessed work: more than the longest queue, but nobody is in front of it.
        first = asyncio.create_task(streams.logits(call(), held, [picture()] * 50))
        others = [asyncio.create_task(streams.logits(call(), held, [picture()] * count)) for count in (16, 3, 50)]
        single = asyncio.create_task(streams.logits(call(), held, [picture()]))  # waits for two of them
        await asyncio.sleep(0.02)
        assert 0.2 < streams.admission.wait_s < 0.4
        held.go.set()
        assert len(await first) == 50
        assert len(await single) == 1
        return list(await asyncio.gather(*others, return_exceptions=True))

    refused = asyncio.run(clients())
    assert all(isinstance(one, Overloaded) and one.retry_after == 1 for one in refused)
    assert held.decoded == 51
    assert (streams.admission.wait_s, streams.admission.pictures) == (0, 0)


@pytest.mark.parametrize("end", ["at once", "soon", "late", "answered", "refused"])
def test_a_request_that_ends_leaves_nothing_in_the_queue(held: Held, picture: Callable[..., bytes], end: str) -> None:
    streams = Streams(1, MAX_PIXELS, metrics())
    inputs: list[bytes | PetalpawError] = [picture(), ImageEmpty("nothing"), b"no picture", picture(), picture()]
    if end == "refused":
        inputs = [ImageEmpty("nothing")] * 5
    one = call(0.1 if end == "late" else 60)

    async def client() -> None:
        async with one.at_most(one.remaining if end == "late" else None):
            request = asyncio.create_task(streams.logits(one, held, inputs))
            if end in ("at once", "soon"):  # before its pictures' tasks run, and while one of them is under way
                await asyncio.sleep(0 if end == "at once" else 0.05)
                assert streams.admission.wait_s > 0
                request.cancel()
            elif end == "answered":
                held.go.set()
            await request

    async def ended() -> None:
        with suppress(asyncio.CancelledError, DeadlineExceeded):
            await client()
        held.go.set()
        async with asyncio.timeout(5):
            while streams.admission.pictures:
                await asyncio.sleep(0.01)

    asyncio.run(ended())
    assert streams.admission.wait_s == 0
    assert held.decoded <= {"at once": 0, "answered": 4, "refused": 0}.get(end, 1)


def test_turns_become_more_where_others_would_make_them_late() -> None:
    async def at_once(others_s: float, seconds: float = 60) -> int:
        admission = Admission(2, max_queue_s=5)
        with admission.turn(others_s):
            return Turns(call(seconds), admission, 16, 2).at_once

    assert asyncio.run(at_once(0)) == 2
    assert asyncio.run(at_once(0.5)) == 2  # eight times half a second
    assert asyncio.run(at_once(2)) == 7
    assert asyncio.run(at_once(5)) == 16
    assert asyncio.run(at_once(0.5, seconds=1)) == 9


def test_turns_become_more_when_others_come_later_but_not_for_a_requests_own_work() -> None:
    async def widths() -> list[int]:
        admission = Admission(2, max_queue_s=5)
        turns = Turns(call(), admission, 16, 2)
        seen = []
        for others_s in (0.0, 0.01, 3.0):
            with admission.turn(others_s), admission.turn(4.0):
                async with turns.one(4.0), turns.one(0.0):
                    pass
            seen.append(turns.at_once)
        return seen

    assert asyncio.run(widths()) == [2, 2, 7]


@pytest.mark.parametrize("kind", ["streams", "adaptive"])
def test_cancelled_work_leaves_the_queue_and_never_runs(held: Held, picture: Callable[..., bytes], kind: str) -> None:
    streams = (
        Streams(1, MAX_PIXELS, metrics())
        if kind == "streams"
        else BatchedStreams(1, MAX_PIXELS, metrics(), max_batch_size=1, max_latency_ms=10_000)
    )

    ahead = 1 if kind == "streams" else 8  # with batches, decoding runs ahead of the held model

    async def clients() -> list[object]:
        calls = [call() for _ in range(8)]
        requests = [asyncio.create_task(streams.logits(one, held, [picture()])) for one in calls]
        while held.decoded < ahead:
            await asyncio.sleep(0.01)
        for one, request in list(zip(calls, requests, strict=True))[2:]:
            one.abandon()
            request.cancel()
        await asyncio.sleep(0.05)
        held.go.set()
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
        streams.close()
        return list(outcomes)

    outcomes = asyncio.run(clients())
    assert all(isinstance(outcome, list) for outcome in outcomes[:2])
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[2:])
    assert held.inferred == 2
    assert held.decoded == max(2, ahead)
    assert streams.admission.pictures == 0


@pytest.mark.parametrize("kind", ["streams", "adaptive"])
def test_what_is_late_is_dropped_before_each_stage(held: Held, picture: Callable[..., bytes], kind: str) -> None:
    class Late(Held):
        def decode(self, data: bytes, max_pixels: int = MAX_PIXELS) -> Decoded:
            sleep(0.3)
            return super().decode(data, max_pixels)

    late = Late(held)
    late.go.set()
    streams = (
        Streams(1, MAX_PIXELS, metrics())
        if kind == "streams"
        else BatchedStreams(1, MAX_PIXELS, metrics(), max_batch_size=4, max_latency_ms=10_000)
    )

    async def clients() -> list[object]:
        requests = [streams.logits(call(seconds), late, [picture()]) for seconds in (0.2, 0.25, 60)]
        outcomes = await asyncio.gather(*requests)
        streams.close()
        return [outcome[0] for outcome in outcomes]

    first, second, third = asyncio.run(clients())
    assert isinstance(first, DeadlineExceeded)  # late once it was decoded
    assert isinstance(second, DeadlineExceeded)  # late before its turn
    assert not isinstance(third, PetalpawError)
    assert (late.decoded, late.inferred) == (2, 1)


def test_the_stages_of_a_call_are_noted(held: Held, picture: Callable[..., bytes]) -> None:
    held.go.set()
    one = call()
    asyncio.run(Streams(1, MAX_PIXELS, metrics()).logits(one, held, [picture()]))
    assert [spent.stage for spent in one.spent] == ["queue", "decode", "preprocess", "inference"]
