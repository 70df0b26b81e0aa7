"""More work than the machine does, on the real server: who is refused, who is answered, and what is never begun."""

import base64
import io
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from inference.repository import Repository
from service.call import TIMEOUT
from tests.conftest import GREEN, RED
from tests.service.conftest import Server, is_problem, start

JPEG = {"content-type": "image/jpeg"}
URL = "/classify?model=colours"
LARGE = (4000, 3000)
"""Pixels of a picture that takes a stream about a tenth of a second."""


@pytest.fixture(scope="module")
def large() -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", LARGE, RED).save(encoded, "JPEG")
    return encoded.getvalue()


@pytest.fixture(scope="module")
def small_queue(tmp_path_factory: pytest.TempPathFactory, repository: Repository) -> Iterator[Server]:
    running = Server(*start(tmp_path_factory.mktemp("bentoml"), models=repository.root, max_queue_s=0.5, streams=1))
    running.wait()
    yield running
    running.stop()
    assert "Traceback" not in running.said(), running.said()


def stages(server: Server) -> Counter[str]:
    """How often each stage ran for `colours` so far."""
    found = re.findall(
        r'^petalpaw_stage_seconds_count{model="colours",stage="(\w+)"} ([\d.]+)',
        server.client.get("/metrics").text,
        re.MULTILINE,
    )
    return Counter({stage: int(float(count)) for stage, count in found})


def head(body: bytes, *more: str) -> bytes:
    lines = [f"POST {URL} HTTP/1.1", "Host: x", "Content-Type: image/jpeg", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_full_queue_refuses_in_words_and_health_answers(
    small_queue: Server, large: bytes, picture: Callable[..., bytes]
) -> None:
    url = small_queue.client.base_url
    for _ in range(3):  # so that it knows what such a picture takes
        assert small_queue.client.post(URL, content=large, headers=JPEG).status_code == 200

    def ask(_: int) -> httpx.Response:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as own:
            return own.post(URL, content=large, headers=JPEG)

    with ThreadPoolExecutor(32) as pool:
        running = [pool.submit(ask, number) for number in range(40)]
        waits = []
        while not all(one.done() for one in running):
            begun = time.perf_counter()
            assert small_queue.client.get("/livez").status_code == 200
            assert small_queue.client.get("/readyz").status_code == 200
            waits.append((time.perf_counter() - begun) / 2)
        answers = [one.result() for one in running]
    codes = Counter(answer.status_code for answer in answers)
    assert set(codes) == {200, 429}
    assert codes[200] >= 3
    for answer in answers:
        if answer.status_code == 429:
            assert "the queue is" in is_problem(answer, 429, "overloaded")["detail"]
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        else:
            assert answer.json()["predictions"][0]["label"] == "red"
    assert sorted(waits)[len(waits) // 2] < 0.25
    assert small_queue.client.post(URL, content=picture(GREEN), headers=JPEG).status_code == 200


def test_requests_of_many_pictures_do_not_get_past_the_longest_queue(
    small_queue: Server, picture: Callable[..., bytes]
) -> None:
    one = picture(RED, size=(2000, 1500))
    files = [("images", ("a.jpg", one))] * 16
    encoded = {"name": "encoded", "shape": [16, 1], "datatype": "BYTES", "data": [base64.b64encode(one).decode()] * 16}

    def ask(number: int) -> httpx.Response:
        with httpx.Client(base_url=small_queue.client.base_url, timeout=60, trust_env=False) as own:
            if number % 3 == 0:
                return own.post("/v2/models/colours/infer", json={"inputs": [encoded]})
            return own.post(URL, files=files)

    # So that it knows what such pictures take, all of which wait for themselves alone.
    assert [ask(number).status_code for number in range(2)] == [200, 200]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    codes = Counter(answer.status_code for answer in answers)
    assert set(codes) == {200, 429}
    assert all(1 <= int(answer.headers["retry-after"]) <= 10 for answer in answers if answer.status_code == 429)


def test_what_cannot_be_in_time_is_dropped_between_the_stages(server: Server, large: bytes) -> None:
    before = stages(server)
    begun = time.perf_counter()
    response = server.client.post(URL, content=large, headers={**JPEG, TIMEOUT: "20"})
    assert time.perf_counter() - begun < 1
    is_problem(response, 504, "deadline_exceeded")
    time.sleep(1)
    ran = stages(server) - before
    assert ran["decode"] <= 1
    assert ran["inference"] == 0


def test_pictures_of_clients_that_left_are_never_decoded(server: Server, large: bytes) -> None:
    before = stages(server)
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for client in clients:
        client.sendall(head(large) + large)
    time.sleep(0.1)
    for client in clients:
        client.close()
    assert server.client.post(URL, content=large, headers=JPEG).status_code == 200
    ran = stages(server) - before
    assert 1 <= ran["decode"] < 12
    assert ran["inference"] < 12


def test_a_deadline_that_is_no_number(client: httpx.Client, large: bytes) -> None:
    response = client.post(URL, content=large, headers={**JPEG, TIMEOUT: "soon"})
    assert TIMEOUT in is_problem(response, 422, "parameter_invalid")["detail"]


def test_a_request_of_many_pictures_does_not_stand_in_front(server: Server, picture: Callable[..., bytes]) -> None:
    medium = picture(RED, size=(2000, 1500))
    files = [("images", ("a.jpg", medium))] * 8

    def many() -> float:
        with httpx.Client(base_url=server.client.base_url, timeout=60, trust_env=False) as own:
            assert own.post(URL, files=files).status_code == 200
        return time.perf_counter()

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(many) for _ in range(4)]
        time.sleep(0.1)
        assert server.client.post(URL, content=picture(GREEN), headers=JPEG).status_code == 200
        single = time.perf_counter()
        ends = [one.result() for one in running]
    assert single < max(ends)
