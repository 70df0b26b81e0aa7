"""Requests that are wrong as a whole: each gets its code, and the server goes on."""

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conftest import RED
from tests.service.conftest import MAX_BODY, MAX_IMAGES, Server, is_problem
from tests.service.corpus import no_objects

Picture = Callable[..., bytes]
JPEG = {"content-type": "image/jpeg"}
GIGABYTE = 1024**3


@pytest.mark.parametrize("field", ["image", "file", "Images", "images[]", "topk"])
def test_unknown_parts_name_what_was_expected(client: httpx.Client, picture: Picture, field: str) -> None:
    body = is_problem(client.post("/classify", files={field: ("a.jpg", picture())}), 422, "parameter_invalid")
    assert repr(field) in body["detail"]
    assert "images, model, version, top_k" in body["detail"]


@pytest.mark.parametrize("query", ["k=3", "top_k=3&Model=colours", "images=a"])
def test_unknown_query_parameters(client: httpx.Client, picture: Picture, query: str) -> None:
    body = is_problem(client.post(f"/classify?{query}", content=picture(), headers=JPEG), 422, "parameter_invalid")
    assert "model, version, top_k" in body["detail"]


def test_unknown_json_keys(client: httpx.Client) -> None:
    body = is_problem(client.post("/classify", json={"image": "aGk="}), 422, "parameter_invalid")
    assert "images, model, version, top_k" in body["detail"]


@pytest.mark.parametrize("name", ["roses", "COLOURS", "../colours", "x" * 500, "\N{ROSE}"])
def test_unknown_models_name_the_known(client: httpx.Client, name: str) -> None:
    body = is_problem(client.post("/classify", json={"images": ["aGk="], "model": name}), 404, "model_unknown")
    assert "colours, tones" in body["detail"]


def test_half_a_character_is_no_model(client: httpx.Client) -> None:
    body = b'{"images": ["aGk="], "model": "\\ud800"}'
    response = client.post("/classify", content=body, headers={"content-type": "application/json"})
    is_problem(response, 404, "model_unknown")


def test_a_model_must_be_named_where_several_are_served(client: httpx.Client, picture: Picture) -> None:
    body = is_problem(client.post("/classify", content=picture(), headers=JPEG), 422, "parameter_invalid")
    assert "colours, tones" in body["detail"]


@pytest.mark.parametrize("top_k", ["0", "-1", "many", "1.5", "", "9" * 5000, "٣", "1e3"])
def test_top_k_must_be_a_whole_number_of_one_or_more(client: httpx.Client, picture: Picture, top_k: str) -> None:
    data = {"model": "colours", "top_k": top_k[:1000]}
    body = is_problem(client.post("/classify", files={"images": ("a", picture())}, data=data), 422, "parameter_invalid")
    assert "top_k" in body["detail"]


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True, [], {"a": 1}, "many", 10**400])
def test_top_k_in_json(client: httpx.Client, top_k: object) -> None:
    body = is_problem(
        client.post("/classify", json={"images": ["aGk="], "model": "colours", "top_k": top_k}),
        422,
        "parameter_invalid",
    )
    assert "top_k" in body["detail"]


def test_top_k_beyond_the_classes_means_all(client: httpx.Client, picture: Picture) -> None:
    response = client.post("/classify?model=colours&top_k=999999999", content=picture(), headers=JPEG)
    assert len(response.json()["predictions"][0]["top_k"]) == 3


@pytest.mark.parametrize(
    "body",
    [
        *no_objects(b"images"),
        b'{"images": "aGk="}',
        b'{"images": {"a": "aGk="}}',
        b'{"images": []}',
        b'{"model": "colours"}',
        b'{"images": ["aGk="], "images": ["aGk="]}',
        b'{"images": ["aGk="], "model": 7}',
        b'{"images": ["aGk="], "top_k": ' + b"9" * 5000 + b"}",
        b'{"images": ["aGk="], "model": "colours", "top_k": NaN}',
    ],
    ids=range(18),
)
def test_broken_json(client: httpx.Client, body: bytes) -> None:
    response = client.post("/classify", content=body, headers={"content-type": "application/json"})
    is_problem(response, 422, "parameter_invalid")


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    said = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return f"--b\r\nContent-Disposition: {said}\r\n\r\n".encode() + data + b"\r\n"


MULTIPART = {"content-type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "multipart/form-data"}, part("images", b"x", "a") + b"--b--"),
        ({"content-type": "multipart/form-data; boundary="}, part("images", b"x", "a") + b"--b--"),
        ({"content-type": "multipart/form-data; boundary=" + "b" * 300}, b"--b--"),
        (MULTIPART, b""),
        (MULTIPART, b"--b--\r\n"),
        (MULTIPART, b"no boundary at all"),
        (MULTIPART, b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--"),
        (MULTIPART, b"--b\r\n\r\nx\r\n--b--"),
        (MULTIPART, part("model", b"colours") + b"--b--"),
        (MULTIPART, part("images", b"text, not a file") + b"--b--"),
        (MULTIPART, part("model", b"colours", "model.txt") + b"--b--"),
        (MULTIPART, part("model", b"a" * 5000) + b"--b--"),
        (MULTIPART, part("model", b"tones") + part("model", b"colours") + part("images", b"x", "a") + b"--b--"),
        (MULTIPART, part("top_k", b"1") + part("top_k", b"1") + part("images", b"x", "a") + b"--b--"),
    ],
    ids=range(14),
)
def test_broken_multipart(client: httpx.Client, headers: dict[str, str], body: bytes) -> None:
    is_problem(client.post("/classify", content=body, headers=headers), 422, "parameter_invalid")


def test_a_parameter_in_the_query_and_in_the_body_is_one_too_many(client: httpx.Client, picture: Picture) -> None:
    response = client.post("/classify?model=tones", files={"images": ("a", picture())}, data={"model": "colours"})
    is_problem(response, 422, "parameter_invalid")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "video/mp4", "nonsense"])
def test_bodies_of_other_types(client: httpx.Client, picture: Picture, kind: str) -> None:
    body = is_problem(
        client.post("/classify", content=picture(), headers={"content-type": kind}), 415, "image_unsupported"
    )
    assert "multipart/form-data" in body["detail"]


def test_too_many_pictures(client: httpx.Client) -> None:
    files = [("images", (f"{number}.jpg", b"x")) for number in range(MAX_IMAGES + 1)]
    is_problem(client.post("/classify", files=files, data={"model": "colours"}), 413, "too_many_images")
    is_problem(client.post("/classify", files=files * 50, data={"model": "colours"}), 413, "too_many_images")
    images = {"images": ["aGk="] * (MAX_IMAGES + 1), "model": "colours"}
    is_problem(client.post("/classify", json=images), 413, "too_many_images")


def test_a_large_picture_within_the_limit_is_read(client: httpx.Client) -> None:
    padded = b"x" * (MAX_BODY - 10)
    is_problem(client.post("/classify?model=colours", content=padded, headers=JPEG), 415, "image_unsupported")


@pytest.mark.parametrize("kind", ["image/jpeg", "application/json", "multipart/form-data; boundary=b"])
def test_a_body_over_the_limit(client: httpx.Client, kind: str) -> None:
    response = client.post("/classify", content=b"x" * (MAX_BODY + 1), headers={"content-type": kind})
    is_problem(response, 413, "request_too_large")
    assert response.headers["connection"] == "close"


def test_a_gigabyte_that_is_announced_is_refused_unread(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {GIGABYTE}\r\n\r\n"
        connection.sendall(head.encode() + b"\xff\xd8\xff")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 413
        assert b"request_too_large" in answer.read()


def test_a_gigabyte_that_is_sent_is_cut_off(client: httpx.Client, server: Server) -> None:
    chunk = b"x" * 65536
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        while sent < GIGABYTE:
            sent += len(chunk)
            yield chunk

    is_problem(client.post("/classify", content=body(), headers=JPEG), 413, "request_too_large")
    assert sent < GIGABYTE / 8
    assert server.client.get("/livez").status_code == 200


def test_a_gigabyte_to_an_address_that_takes_nothing(client: httpx.Client) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        while sent < GIGABYTE:
            sent += 65536
            yield b"x" * 65536

    is_problem(client.post("/nothing", content=body()), 404, "path_unknown")
    assert sent < GIGABYTE / 8


@pytest.mark.parametrize("kind", ["image/jpeg", "application/json", "multipart/form-data; boundary=b"])
def test_a_half_sent_body_leaves_no_trace(server: Server, kind: str) -> None:
    head = f"POST /classify?model=colours HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 5000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head.encode() + b"--b\r\n")
        time.sleep(0.1)
    assert server.client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "path_unknown"),
        ("POST", "/", 405, "method_unsupported"),
        ("GET", "/classify", 405, "method_unsupported"),
        ("DELETE", "/models/colours", 405, "method_unsupported"),
        ("POST", "/readyz", 405, "method_unsupported"),
        ("GET", "/models/a/b", 404, "path_unknown"),
        ("GET", "/models/%2e%2e%2fpasswd", 404, "path_unknown"),
    ],
)
def test_other_addresses_and_methods(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    response = client.request(method, path)
    is_problem(response, status, code)
    assert ("allow" in response.headers) == (status == 405)


def test_health_answers_while_large_requests_run(client: httpx.Client, server: Server, picture: Picture) -> None:
    big = picture(RED, size=(3000, 2000))
    files = [("images", (f"{number}.jpg", big)) for number in range(min(MAX_IMAGES, (MAX_BODY - 9999) // len(big)))]
    assert len(files) > 1

    def load(_: int) -> int:
        with httpx.Client(base_url=server.client.base_url, timeout=60, trust_env=False) as own:
            return own.post("/classify?model=colours", files=files).status_code

    with ThreadPoolExecutor(8) as pool:
        running = pool.map(load, range(8))
        times = []
        for _ in range(20):
            begun = time.perf_counter()
            assert client.get("/livez").status_code == 200
            times.append(time.perf_counter() - begun)
        assert set(running) == {200}
    assert sorted(times)[10] < 0.25
    assert max(times) < 2


def test_millions_of_small_values_are_refused_before_they_are_read(server: Server, client: httpx.Client) -> None:
    before = server.peak_memory()
    swarm = b'{"images": [' + b",".join([b"1"] * (MAX_BODY // 2 - 100)) + b"]}"
    is_problem(
        client.post("/classify", content=swarm, headers={"content-type": "application/json"}), 413, "too_many_images"
    )
    nested = b'{"images": [' + b"[]" * (MAX_BODY // 2 - 100) + b"]}"
    is_problem(
        client.post("/classify", content=nested, headers={"content-type": "application/json"}), 422, "parameter_invalid"
    )
    assert server.peak_memory() - before < 64 * 2**20


@pytest.mark.parametrize(
    ("boundary", "quoted"),
    [
        ("B", "B"),
        ("a b", '"a b"'),
        ("----=_Part_1_123.456", "----=_Part_1_123.456"),
        ("x'()+_,-./:=?y", "x'()+_,-./:=?y"),
    ],
)
def test_boundaries_as_clients_write_them(client: httpx.Client, picture: Picture, boundary: str, quoted: str) -> None:
    part = b'Content-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n' + picture()
    body = f"--{boundary}\r\n".encode() + part + f"\r\n--{boundary}--\r\n".encode()
    for blank in (" ", "\t", ""):
        kind = {"content-type": f"multipart/form-data;{blank}boundary={quoted}"}
        answer = client.post("/classify?model=colours", content=body, headers=kind)
        assert answer.status_code == 200, answer.text


def test_folded_headers_of_a_part_are_refused(client: httpx.Client, picture: Picture) -> None:
    head = b'--B\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"' + b"\r\n a" * 100_000
    kind = {"content-type": "multipart/form-data; boundary=B"}
    body = head + b"\r\n\r\n" + picture() + b"\r\n--B--\r\n"
    is_problem(client.post("/classify?model=colours", content=body, headers=kind), 422, "parameter_invalid")


def test_a_multipart_body_that_ends_early_is_refused_whole(client: httpx.Client, picture: Picture) -> None:
    part = b'--B\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n' + picture()
    kind = {"content-type": "multipart/form-data; boundary=B"}
    for body in (part, part + b"\r\n" + part[:-100], part + b"\r\n--B\r\n"):
        refused = client.post("/classify?model=colours", content=body, headers=kind)
        assert "closing boundary" in is_problem(refused, 422, "parameter_invalid")["detail"]
    assert client.post("/classify?model=colours", content=part + b"\r\n--B--\r\n", headers=kind).status_code == 200


def test_a_content_type_that_is_not_utf8_gets_its_whole_answer(server: Server, picture: Picture) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", "/classify?model=colours")
    connection.putheader("Content-Type", b"image/jpeg;\xff")
    connection.putheader("Content-Length", str(len(picture())))
    connection.endheaders(picture())
    answered = connection.getresponse()
    assert answered.status == 200
    assert b'"label":"red"' in answered.read()
    connection.close()


@pytest.mark.parametrize(("method", "path"), [("POST", "/classify/"), ("GET", "/models/"), ("GET", "/v2/")])
def test_a_slash_too_many_is_no_address_and_leads_nowhere(client: httpx.Client, method: str, path: str) -> None:
    response = client.request(method, path, headers={"host": "elsewhere.example"})
    assert response.status_code == 404
    assert "path_unknown" in response.text
