"""What a client can do before there is a request, over raw sockets."""

import contextlib
import http.client
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.service.conftest import MAX_BODY, MAX_CONNECTIONS, PREDICT_KEY, Server

HEAD = "GET /livez HTTP/1.1\r\nHost: x\r\n"


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        yield connection


def answered(connection: socket.socket) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


def alive(server: Server) -> bool:
    return server.client.get("/livez").status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\na b: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\0: c\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=range(11),
)
def test_what_is_no_http_is_a_problem(guarded: Server, head: bytes) -> None:
    with connected(guarded) as connection:
        connection.sendall(head)
        status, body = answered(connection)
    assert status == 400
    assert b'"code":"request_malformed"' in body
    assert alive(guarded)


@pytest.mark.parametrize(
    "head",
    [
        HEAD + "X: " + "x" * 5000 + "\r\n\r\n",
        "GET /" + "x" * 5000 + " HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + "".join(f"X-{number}: x\r\n" for number in range(200)) + "\r\n",
    ],
    ids=["long header", "long address", "many headers"],
)
def test_a_head_beyond_the_limit(guarded: Server, head: str) -> None:
    with connected(guarded) as connection:
        connection.sendall(head.encode())
        status, body = answered(connection)
    assert status == 431
    assert b'"code":"headers_too_large"' in body


def test_a_head_without_end_is_refused_while_it_comes(guarded: Server) -> None:
    sent = 0
    with connected(guarded) as connection:
        connection.sendall(HEAD.encode() + b"X: ")
        with contextlib.suppress(ConnectionError):
            while sent < 50 * 2**20:
                sent += connection.send(b"x" * 65536)
    assert sent < 20 * 2**20
    assert alive(guarded)


def test_a_head_that_comes_too_slowly(guarded: Server) -> None:
    begun = time.monotonic()
    with connected(guarded) as connection:
        for letter in HEAD:
            with contextlib.suppress(ConnectionError):
                connection.sendall(letter.encode())
            time.sleep(0.05)
            if time.monotonic() - begun > 1.3:
                break
        status, body = answered(connection)
    assert time.monotonic() - begun < 4
    assert status == 408
    assert b'"code":"upload_too_slow"' in body


def test_what_is_refused_before_it_is_a_request_counts_and_leaves_one_line(guarded: Server) -> None:
    series = 'petalpaw_requests_total{code="request_malformed",method="other",route="other",status="400"} '

    def counted() -> float:
        text = guarded.client.get("/metrics", headers={"X-API-Key": PREDICT_KEY}).text
        return sum(float(line.removeprefix(series)) for line in text.splitlines() if line.startswith(series))

    before, lines = counted(), guarded.said().count(": request_malformed")
    with connected(guarded) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert answered(connection)[0] == 400
    assert counted() == before + 1
    assert guarded.said().count(": request_malformed") == lines + 1
    assert "Invalid HTTP request received" not in guarded.said()


def test_a_connection_without_a_word_is_closed(guarded: Server) -> None:
    with connected(guarded) as connection:
        assert connection.recv(1) == b""


def test_the_next_head_on_a_connection_has_the_same_limits(guarded: Server) -> None:
    with connected(guarded) as connection:
        connection.sendall((HEAD + "\r\n").encode())
        assert answered(connection)[0] == 200
        connection.sendall(HEAD.encode())
        assert answered(connection)[0] == 408


@pytest.mark.parametrize("spaces", [b"\r\n", b"\r\n\r\n\r\n"])
def test_blank_lines_keep_no_connection(guarded: Server, spaces: bytes) -> None:
    begun = time.monotonic()
    with connected(guarded) as connection:
        connection.sendall((HEAD + "\r\n").encode())
        assert answered(connection)[0] == 200
        connection.sendall(spaces)
        assert connection.recv(1) == b""
        assert time.monotonic() - begun < 4
    with connected(guarded) as connection:
        for _ in range(2):
            connection.sendall(spaces + (HEAD + "\r\n").encode())
            assert answered(connection)[0] == 200


def test_an_idle_connection_is_kept_for_a_while_and_then_closed(guarded: Server, server: Server) -> None:
    with connected(guarded) as short, connected(server) as long:
        for connection in (short, long):
            connection.sendall(HEAD.encode() + b"\r\n")
            assert answered(connection)[0] == 200
        began = time.monotonic()
        assert short.recv(1) == b""
        assert 2 < time.monotonic() - began < 15
        time.sleep(max(0.0, began + 6 - time.monotonic()))  # uvicorn's own limit is 5 s, less than proxies keep theirs
        long.sendall(HEAD.encode() + b"\r\n")
        assert answered(long)[0] == 200


def test_idle_connections_make_room(guarded: Server) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(guarded)) for _ in range(MAX_CONNECTIONS + 10)]
        with connected(guarded) as connection:
            connection.sendall((HEAD + "\r\n").encode())
            assert answered(connection)[0] == 200
        assert idle[0].recv(1) == b""


def test_who_finds_no_connection_left_is_told(guarded: Server) -> None:
    begun = f"POST /classify HTTP/1.1\r\nHost: x\r\nX-API-Key: {PREDICT_KEY}\r\nContent-Type: image/jpeg\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            stack.enter_context(connected(guarded)).sendall(f"{begun}Content-Length: 9\r\n\r\nx".encode())
        time.sleep(0.3)
        with connected(guarded) as connection:
            status, body = answered(connection)
            assert status == 429
            assert b"no connection left" in body
    time.sleep(0.3)
    assert alive(guarded)


def test_a_body_that_drips_ends_before_its_request_would(guarded: Server) -> None:
    head = (
        f"POST /classify?model=colours HTTP/1.1\r\nHost: x\r\nX-API-Key: {PREDICT_KEY}\r\nContent-Type: image/jpeg\r\n"
    )
    with connected(guarded) as connection:
        connection.sendall(f"{head}Content-Length: 5000\r\n\r\n".encode())
        begun = time.monotonic()
        for _ in range(100):
            try:
                connection.sendall(b"x")
            except ConnectionError:
                break
            time.sleep(0.1)
            if time.monotonic() - begun > 6:
                break
        status, body = answered(connection)
    assert status == 408
    assert b'"code":"upload_too_slow"' in body
    assert time.monotonic() - begun < 12


def test_the_bodies_of_all_requests_have_a_limit_together(guarded: Server, picture: Callable[..., bytes]) -> None:
    begun = (
        f"POST /classify?model=colours HTTP/1.1\r\nHost: x\r\nX-API-Key: {PREDICT_KEY}\r\nContent-Type: image/jpeg\r\n"
    )
    head = f"{begun}Content-Length: {MAX_BODY}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connected(guarded)).sendall(head + b"x" * (MAX_BODY - 1))
        time.sleep(0.5)
        with connected(guarded) as connection:
            connection.sendall(head + b"x" * (MAX_BODY // 2))
            status, body = answered(connection)
        assert status == 429
        assert b"as many bytes of request bodies as it may" in body
    time.sleep(0.5)
    headers = {"X-API-Key": PREDICT_KEY, "Content-Type": "image/jpeg"}
    assert guarded.client.post("/classify?model=colours", content=picture(), headers=headers).status_code == 200


def test_an_upgrade_is_ignored(guarded: Server) -> None:
    for kind in ("websocket", "h2c"):
        with connected(guarded) as connection:
            connection.sendall(f"{HEAD}Connection: Upgrade\r\nUpgrade: {kind}\r\n\r\n".encode())
            assert answered(connection)[0] == 200


def test_trailers_are_no_headers(guarded: Server, picture: Callable[..., bytes]) -> None:
    head = "POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = picture()
    with connected(guarded) as connection:
        connection.sendall(head.encode() + b"%x\r\n" % len(data) + data + b"\r\n0\r\n")
        connection.sendall(f"X-API-Key: {PREDICT_KEY}\r\n\r\n".encode())
        assert answered(connection)[0] == 401


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=b", "image/jpeg", "application/json"])
def test_a_chunk_that_lies_about_its_size_is_answered(guarded: Server, kind: str) -> None:
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nX-API-Key: {PREDICT_KEY}\r\nContent-Type: {kind}\r\n"
    begun = f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\n--b\r\n\r\n".encode()
    for bad in (b"zz\r\n", b"2\r\nabcdef\r\n"):
        with connected(guarded) as connection:
            connection.sendall(begun)
            time.sleep(0.1)
            connection.sendall(bad)
            status, body = answered(connection)
        assert status == 400
        assert b'"code":"request_malformed"' in body
    with connected(guarded) as connection:  # the answer to a whole request comes first, whatever follows it
        connection.sendall((HEAD + "\r\n").encode() + begun + b"zz\r\n")
        assert answered(connection)[0] == 200


@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_a_broken_chunk_counts_once(guarded: Server, pause: float) -> None:
    def counted() -> dict[str, float]:
        text = guarded.client.get("/metrics", headers={"X-API-Key": PREDICT_KEY}).text
        lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith("petalpaw_requests_total{")]
        return {series: float(count) for series, _, count in lines if "/metrics" not in series}

    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nX-API-Key: {PREDICT_KEY}\r\nContent-Type: image/jpeg\r\n"
    series = 'petalpaw_requests_total{code="request_malformed",method="POST",route="/classify",status="400"}'
    before = counted()
    with connected(guarded) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        time.sleep(pause)
        connection.sendall(b"zz\r\n")
        assert answered(connection)[0] == 400
    time.sleep(0.1)
    after = counted()
    assert {key: count - before.get(key, 0.0) for key, count in after.items() if count != before.get(key)} == {
        series: 1
    }


def test_pipelined_requests_are_answered_in_order(guarded: Server) -> None:
    with connected(guarded) as connection:
        connection.sendall((HEAD + "\r\n").encode() + b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b""
        while part := connection.recv(65536):
            received += part
    assert received.startswith(b"HTTP/1.1 200")
    assert received.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 401" in received
