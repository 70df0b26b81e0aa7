"""More than a thousand broken pictures and requests against the real server, and good ones beside them."""

import contextlib
import http.client
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests import corpus
from tests.conftest import BLUE, GREEN, RED
from tests.corpus import broken_images
from tests.service.conftest import ROOT, Server, is_problem
from tests.service.corpus import Broken, broken_requests

URL = "/classify?model=colours"
JPEG = {"content-type": "image/jpeg"}
IMAGE_CODES = {"image_empty", "image_unsupported", "image_truncated", "image_too_many_pixels"}
DOCUMENTED = {503, 504}
SILENCE_S = 1.0
"""How long an answer is waited for that need not come."""

MEMORY = 300 * 2**20


@contextlib.contextmanager
def good_neighbour(server: Server, picture: Callable[..., bytes]) -> Iterator[None]:
    """Asks with good pictures all the while; each must get its own right answer."""
    bodies = {"red": picture(RED), "green": picture(GREEN), "blue": picture(BLUE)}
    wrong: list[str] = []
    asked, over = 0, threading.Event()

    def ask() -> None:
        nonlocal asked
        with httpx.Client(base_url=server.client.base_url, timeout=60, trust_env=False) as own:
            while not over.is_set():
                for colour, body in bodies.items():
                    response = own.post(URL, content=body, headers=JPEG)
                    asked += 1
                    if response.status_code != 200 or response.json()["predictions"][0]["label"] != colour:
                        wrong.append(response.text)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert wrong == []
    assert asked >= 9


@contextlib.contextmanager
def unharmed(server: Server) -> Iterator[None]:
    """The same processes before and after, not much larger, with nothing unexpected in the log."""
    root = psutil.Process(server._process.pid)
    before, memory = {child.pid for child in root.children(recursive=True)}, server.peak_memory()
    yield
    assert {child.pid for child in root.children(recursive=True)} == before
    assert server.peak_memory() - memory < MEMORY
    said = server.said()
    assert "Traceback" not in said, said[said.index("Traceback") - 2000 :][:6000]


def test_the_corpus_is_what_it_says() -> None:
    images, requests = broken_images(), broken_requests()
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert f"{len(images)} broken pictures and {len(requests)} broken requests are sent in every test run" in page
    assert images == broken_images.__wrapped__()
    assert requests == broken_requests.__wrapped__()
    for names in ([one.name for one in images], [one.name for one in requests]):
        assert len(set(names)) == len(names)


def test_broken_pictures_are_outcomes(server: Server, picture: Callable[..., bytes]) -> None:
    def ask(image: corpus.Broken) -> str:
        response = server.client.post(URL, content=image.data, headers={"content-type": "application/octet-stream"})
        if response.status_code == 200:
            return "ok"
        code = str(response.json()["code"])
        is_problem(response, response.status_code, code)
        return code

    with unharmed(server), good_neighbour(server, picture), ThreadPoolExecutor(8) as pool:
        codes = Counter(pool.map(ask, broken_images()))
    assert set(codes) <= {"ok", *IMAGE_CODES}
    assert codes["image_truncated"] > 200
    assert codes["image_unsupported"] > 20
    assert codes["image_too_many_pixels"] > 10
    assert codes["image_empty"] == 1


def test_broken_pictures_harm_no_neighbour_of_their_request(server: Server, picture: Callable[..., bytes]) -> None:
    images = [image for image in broken_images() if len(image.data) < 100_000][::8]
    good = picture(GREEN)

    def ask(start: int) -> list[str]:
        files = []
        for image in images[start : start + 11]:
            files += [("images", (image.name, image.data)), ("images", ("good.jpg", good))]
        predictions = server.client.post(URL, files=files).json()["predictions"]
        assert [one["filename"] for one in predictions] == [name for _, (name, _) in files]
        return [one.get("label") for one in predictions[1::2]]

    with unharmed(server), ThreadPoolExecutor(4) as pool:
        labels = [label for some in pool.map(ask, range(0, len(images), 11)) for label in some]
    assert labels == ["green"] * len(images)


def test_broken_requests_are_refused_in_words(server: Server, picture: Callable[..., bytes]) -> None:
    requests = broken_requests()

    def ask(one: Broken) -> int | None:
        status = answered(server, one)
        assert status is not None or not one.whole, f"no answer: {one.name}"
        assert status is None or status < 500 or status in DOCUMENTED, f"{status}: {one.name}"
        return status

    with unharmed(server), good_neighbour(server, picture), ThreadPoolExecutor(16) as pool:
        statuses = Counter(pool.map(ask, requests))
    assert statuses[None] < len(requests) / 3
    assert {400, 404, 405, 413, 415, 422, 431} <= set(statuses)


def answered(server: Server, one: Broken) -> int | None:
    """The status of the answer; None when the server waits for more, or ends the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60 if one.whole else SILENCE_S) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(one.data)
        answer = http.client.HTTPResponse(connection)
        try:
            answer.begin()
            answer.read()
        except (TimeoutError, ConnectionError, http.client.HTTPException):
            return None
        return answer.status


@pytest.mark.parametrize("kind", ["image/jpeg", "application/json", "multipart/form-data; boundary=b"])
def test_clients_that_stop_half_way_hold_nobody_up(server: Server, picture: Callable[..., bytes], kind: str) -> None:
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 50000\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.sendall(head + b"--b\r\n" * 100)
        assert server.client.post(URL, content=picture(), headers=JPEG).status_code == 200
    assert server.client.get("/readyz").status_code == 200
