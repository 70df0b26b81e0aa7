"""What a running server says of itself: numbers, headers and log lines, and that no stranger can make it say more."""

import re
import time
from collections.abc import Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.service.conftest import Server

STAGES = ("read", "decode", "preprocess", "queue", "inference")


def value(client: httpx.Client, name: str, **labels: str) -> float:
    """The sum of the samples with this name and at least these labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def photos(picture: Callable[..., bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", ("secret-name.jpg", picture())), ("images", ("b.jpg", b"text"))]


def test_a_request_is_counted_by_route_and_its_pictures_by_outcome(
    client: httpx.Client, picture: Callable[..., bytes]
) -> None:
    def counted() -> list[float]:
        return [
            value(client, "petalpaw_requests_total", route="/classify", method="POST", status="200", code="ok"),
            value(client, "petalpaw_request_seconds_count", route="/classify"),
            value(client, "petalpaw_pictures_total", model="tones", code="ok"),
            value(client, "petalpaw_pictures_total", model="tones", code="image_unsupported"),
            *(value(client, "petalpaw_stage_seconds_count", model="tones", stage=stage) for stage in STAGES),
        ]

    before = counted()
    assert client.post("/classify?model=tones", files=photos(picture)).status_code == 200
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 1, 1, 1, 1, 2, 1, 2, 1]


def test_rejects_are_counted_by_code(client: httpx.Client) -> None:
    def counted() -> list[float]:
        return [
            value(client, "petalpaw_requests_total", route="/classify", status="404", code="model_unknown"),
            value(client, "petalpaw_requests_total", route="/classify", status="405", code="method_unsupported"),
            value(client, "petalpaw_requests_total", route="/models/{name}", status="404", code="model_unknown"),
        ]

    before = counted()
    client.post("/classify?model=roses", content=b"x", headers={"content-type": "image/png"})
    client.get("/classify")
    client.get("/models/roses")
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 1, 1]


def test_no_stranger_makes_a_new_series(client: httpx.Client) -> None:
    def series() -> set[str]:
        return {line.rpartition(" ")[0] for line in client.get("/metrics").text.splitlines()}

    client.get("/nothing/0")
    client.request("BREW", "/nothing/0")
    before = series()
    for number in range(50):
        client.get(f"/nothing/{number}/here")
        client.request(f"BREW{number}", f"/models/{number}")
        client.get(f"/models/{number}")
    known = series()
    assert not {line for line in known if "nothing" in line or "BREW" in line}
    assert len(known - before) <= 60  # the histogram and counters of the routes used here for the first time
    for number in range(50, 100):
        client.get(f"/nothing/{number}/here")
        client.request(f"BREW{number}", f"/models/{number}")
        client.get(f"/models/{number}")
    assert series() == known


def test_nothing_waits_or_runs_when_nobody_asks(client: httpx.Client, picture: Callable[..., bytes]) -> None:
    client.post("/classify?model=colours", files=photos(picture))
    assert value(client, "petalpaw_pictures_in_flight") == 0
    assert value(client, "petalpaw_queue_pictures") == 0
    assert value(client, "petalpaw_streams") >= 1
    info = {"model": "colours", "version": "1", "runtime": "onnx", "device": "cpu"}
    assert value(client, "petalpaw_model_info", execution_provider="CPUExecutionProvider", **info) == 1
    assert value(client, "process_resident_memory_bytes") > 10_000_000


def test_headers_tell_the_request_and_its_time(client: httpx.Client, picture: Callable[..., bytes]) -> None:
    response = client.post("/classify?model=tones", files=photos(picture), headers={"X-Request-Id": "trial-1"})
    assert response.headers["x-request-id"] == "trial-1"
    timing = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"]))
    assert list(timing) == [*STAGES, "total"]
    assert 0 < float(timing["inference"]) < float(timing["total"]) < 60_000
    strange = client.get("/nothing", headers={"X-Request-Id": "a b\tc"})
    assert re.fullmatch(r"[0-9a-f]{16}", strange.headers["x-request-id"])


def test_a_line_for_every_request_but_those_of_probes(server: Server, picture: Callable[..., bytes]) -> None:
    headers = {"X-Request-Id": "line-of-its-own", "Authorization": "Bearer secret-key"}
    server.client.post("/classify?model=tones&top_k=2", files=photos(picture), headers=headers)
    server.client.get("/no%0Asuch?key=secret", headers={"X-Request-Id": "unknown"})
    for _ in range(50):
        lines = re.findall(r".*\(request (?:line-of-its-own|unknown)\)", server.said())
        if len(lines) == 2:
            break
        time.sleep(0.1)
    first, second = lines
    assert re.search(r"\[INFO\] POST /classify 200 in [\d.]+ ms: image_unsupported 1, ok 1 by tones/1 \(", first)
    assert re.search(r"\[INFO\] GET /no%0Asuch 404 in [\d.]+ ms: path_unknown \(", second)
    assert "secret" not in server.said()
    assert "GET /readyz" not in server.said()
