"""Broken requests, as bytes on the wire, the same ones every time."""

import base64
import json
import random
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import NamedTuple

from tests.corpus import SEED, zeros
from tests.inference.fuzz import damaged, pictures

DAMAGED_REQUESTS = 260
MODEL = "colours"


class Broken(NamedTuple):
    """`whole` is False for bytes after which a server rightly waits for more, or says nothing."""

    name: str
    data: bytes
    whole: bool = True


@cache
def broken_requests() -> tuple[Broken, ...]:
    """Several hundred: requests with damage at random, and those that somebody thought about."""
    chance = random.Random(SEED + 1)
    picture = pictures()[0]
    good = [
        request(picture, kind="image/jpeg"),
        request(form(("images", "a.jpg", picture), ("model", None, MODEL.encode())), kind=FORM, query=""),
        request(as_json([picture]), kind="application/json", query=""),
        request(infer(picture), f"/v2/models/{MODEL}/infer", kind="application/json", query=""),
    ]
    random_damage = [
        Broken(f"damaged request {index}", damaged(good[index % len(good)], chance), whole=False)
        for index in range(DAMAGED_REQUESTS)
    ]
    thought_about = (_json(), _multipart(picture), _open_inference(picture), _addresses(picture), _heads(picture))
    return (*random_damage, *chain(*thought_about), *_noise(), *_half(good))


FORM = "multipart/form-data; boundary=b"


def request(
    body: bytes, path: str = "/classify", *more: str, kind: str, query: str = f"?model={MODEL}", method: str = "POST"
) -> bytes:
    """A request as it goes over the wire."""
    lines = [
        f"{method} {path}{query} HTTP/1.1",
        "Host: x",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    """A multipart body of (name, file name, content)."""
    said = b""
    for name, filename, content in parts:
        file = f'; filename="{filename}"' if filename else ""
        said += f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"
    return said + b"--b--\r\n"


def as_json(images: list[bytes]) -> bytes:
    """The JSON body of these pictures."""
    return json.dumps({"images": [base64.b64encode(data).decode() for data in images], "model": MODEL}).encode()


def infer(picture: bytes) -> bytes:
    """A request of the Open Inference Protocol, in JSON."""
    tensor = {"name": "encoded", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(picture).decode()]}
    return json.dumps({"inputs": [tensor]}).encode()


def no_objects(key: bytes) -> list[bytes]:
    """Bodies that hold no JSON object, or one with this key that never ends."""
    endless = [b'{"%b": ' % key + each for each in (b"[" * 100_000, b'{"a":' * 50_000)]
    return [b"", b"{", b"null", b"[]", b'"%b"' % key, b"7", b"\xff\xfe\x00", b"[" * 100_000, *endless]


def _json() -> Iterator[Broken]:
    deep = [b"[" * n for n in (10, 1000, 100_000)] + [b'{"a":' * n for n in (10, 1000, 100_000)]
    values = [
        b"null",
        b"true",
        b"0",
        b"-1e400",
        b"NaN",
        b'""',
        b"[]",
        b"{}",
        b'"x"',
        b"[[]]",
        b"[null]",
        b"[{}]",
        b"[1]",
    ]
    texts = [b'"\\ud800"', b'"\\u0000"', b'"\xff"', b'"' + b"a" * 100_000 + b'"', b'"../../etc/passwd"', b"9" * 5000]
    bodies = [b"", b" ", b"{", b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b"{}}", b"{,}", b"'a'", b"{'images': []}", *deep]
    for key in (b"images", b"model", b"top_k", b"other"):
        bodies += [b'{"images": ["aGk="], "%b": %b}' % (key, value) for value in (*values, *texts)]
    bodies += [
        b'{"images": ["%b"]}' % text
        for text in (b"!!!", b"aGk", b"aGk=" * 9 + b"=", b"\\n\\n", b"data:image/png;base64,aGk=")
    ]
    bodies += [b'{"images": [' + b",".join([b'"aGk="'] * count) + b"]}" for count in (25, 90, 100_000)]
    for index, body in enumerate(bodies):
        yield Broken(f"JSON {index}", request(body, kind="application/json", query=""))
        yield Broken(
            f"JSON {index} for /v2", request(body, f"/v2/models/{MODEL}/infer", kind="application/json", query="")
        )


def _multipart(picture: bytes) -> Iterator[Broken]:
    good = form(("images", "a.jpg", picture))
    image, model, top_k = ("images", "a.jpg", picture), ("model", None, MODEL.encode()), ("top_k", None, b"1")
    bodies = {
        "every field twice": form(image, model, model, top_k, top_k),
        "a thousand parts": form(*[image] * 1000),
        "a thousand fields": form(image, *[model] * 1000),
        "unknown field": form(image, ("other", None, b"x")),
        "field as file": form(("model", "m", b"x"), image),
        "picture as field": form(("images", None, picture)),
        "long field": form(image, ("model", None, b"m" * 100_000)),
        "names of null": form(("\0", "\0", picture)),
        "file name as path": form(("images", "../../../etc/passwd", picture), model),
        "file name of a megabyte": form(("images", "a" * 2**20, picture), model),
        "no end": good[:-6],
        "only the end": b"--b--\r\n",
        "no blank line": good.replace(b"\r\n\r\n", b"\r\n", 1),
        "bare line feeds": good.replace(b"\r\n", b"\n"),
        "part in a part": form(("images", "a.jpg", form(image))),
        "header flood in a part": b"--b\r\n" + b"X: y\r\n" * 50_000 + good[5:],
        "header of a megabyte in a part": b"--b\r\nX: " + b"y" * 2**20 + b"\r\n" + good[5:],
        "unfinished header in a part": b"--b\r\nContent-Disposition",
        "base64 as encoding": good.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1),
        "boundaries everywhere": b"--b\r\n" * 10_000,
    }
    for name, body in bodies.items():
        yield Broken(f"multipart: {name}", request(body, kind=FORM, query=""))
    kinds = [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=b",
        FORM + "; charset=x",
    ]
    kinds += [f"multipart/form-data; boundary={'b' * 500}", 'multipart/form-data; boundary="b', FORM + "; boundary=c"]
    kinds += ["multipart/form-data; charset=utf-16; boundary=b", "multipart/form-data; boundary=\xe4"]
    for kind in kinds:
        yield Broken(f"multipart as {kind[:60]}", request(good, kind=kind))


def _open_inference(picture: bytes) -> Iterator[Broken]:
    path = f"/v2/models/{MODEL}/infer"
    good = json.loads(infer(picture))
    tensor = good["inputs"][0]
    wrong = [{**tensor, key: value} for key in tensor for value in (None, 7, "", [], {}, [-1], [2**63], "x" * 10_000)]
    wrong += [{**tensor, "shape": shape} for shape in ([0], [2], [1, 1], [2**31, 2**31], [1.5], ["1"], [True])]
    wrong += [
        {**tensor, "name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [value] * 3072}
        for value in (-1, 256, 1.5, "1", None)
    ]
    for index, one in enumerate(wrong):
        yield Broken(
            f"tensor {index}", request(json.dumps({"inputs": [one]}).encode(), path, kind="application/json", query="")
        )
    binary = json.dumps({"inputs": [{**tensor, "data": None, "parameters": {"binary_data_size": 9}}]}).encode()
    for length in ("-1", "0", "5", str(len(binary)), "99999999999999999999", "x", "1.5", ""):
        header = f"Inference-Header-Content-Length: {length}"
        body = binary.replace(b', "data": null', b"") + b"\xff\xff\xff\xff" + picture
        yield Broken(f"header length {length}", request(body, path, header, kind="application/octet-stream", query=""))
    for encoding, body in (
        ("gzip", b"no gzip"),
        ("deflate", zeros(100)),
        ("gzip", b"\x1f\x8b\x08" + zeros(1)),
        ("br", b"x"),
    ):
        header = f"Content-Encoding: {encoding}"
        yield Broken(f"{encoding} of {len(body)} bytes", request(body, path, header, kind="application/json", query=""))


def _addresses(picture: bytes) -> Iterator[Broken]:
    """Odd request lines."""
    for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "CONNECT", "PURGE", "get", "X" * 500):
        yield Broken(f"method {method[:20]}", request(picture, kind="image/jpeg", method=method), whole=False)
    paths = [
        "//classify",
        "/classify/",
        "/%00",
        "/%ff",
        "/..%2f..%2fetc%2fpasswd",
        "/classify;a=b",
        "http://a/classify",
    ]
    paths += [
        "*",
        "",
        "/" + "a" * 3000,
        "/models/%2e%2e",
        "/models/\xe4",
        "/v2/models/../../x",
        "/static_content/..%5c",
        "/?",
    ]
    for path in paths:
        yield Broken(f"path {path[:40]}", request(b"", path, kind="image/jpeg", query="", method="GET"), whole=False)
    queries = [
        "?model=",
        "?model=a&model=b",
        "?top_k=1&top_k=2",
        "?%",
        "?%00=%ff",
        "?" + "&" * 3000,
        "?model=%ed%a0%80",
        "?a=b",
    ]
    for query in queries:
        yield Broken(f"query {query[:40]}", request(picture, kind="image/jpeg", query=query), whole=False)
    yield Broken("an address of a megabyte", request(picture, "/" + "y" * 2**20, kind="image/jpeg"))


def _heads(picture: bytes) -> Iterator[Broken]:
    """Doubled, odd and endless headers."""
    doubled = [
        "Content-Type: image/png",
        "Content-Length: 1",
        "Host: y",
        "Transfer-Encoding: chunked",
        "X-Request-Timeout-Ms: 1",
    ]
    odd = [
        "Expect: 100-continue",
        "Expect: x",
        "Connection: upgrade\r\nUpgrade: websocket",
        "Connection: close, keep-alive",
    ]
    odd += [
        "X-Request-Id: " + "i" * 3000,
        "X-Request-Timeout-Ms: 0",
        "Range: bytes=0-1",
        "Content-Encoding: gzip",
        "Accept: x/y",
    ]
    odd += [
        "Authorization: Bearer \xff",
        "Cookie: " + "a=b;" * 1000,
        "X-Forwarded-For: 127.0.0.1",
        "traceparent: 00-0-0-0",
        "Origin: null",
    ]
    for line in (*doubled, *odd):
        yield Broken(f"with {line[:40]}", request(picture, "/classify", line, kind="image/jpeg"), whole=False)
    yield Broken("a thousand headers", request(picture, "/classify", *["X: y"] * 1000, kind="image/jpeg"))
    yield Broken("a header of a megabyte", request(picture, "/classify", "X: " + "y" * 2**20, kind="image/jpeg"))


def _noise() -> Iterator[Broken]:
    """Chunks whose lengths lie, and what is no request at all."""
    head = f"POST /classify?model={MODEL} HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n".encode()
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    for sizes in (
        b"zz\r\n",
        b"-1\r\n",
        b"ffffffffffffffffff\r\n",
        b"5\r\nabc",
        b"0\r\n" + b"X: y\r\n" * 50_000,
        b"5;" + b"e" * 10**6,
    ):
        yield Broken(f"chunks {sizes[:20]!r}", head + sizes, whole=False)
    for noise in (
        b"\0" * 100,
        b"\x16\x03\x01" + b"\0" * 100,
        b"\r\n" * 1000,
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ):
        yield Broken(f"no request {noise[:12]!r}", noise, whole=False)


def _half(good: list[bytes]) -> Iterator[Broken]:
    """Requests whose client leaves before their end."""
    for index, data in enumerate(good):
        for share in (0.05, 0.3, 0.6, 0.99):
            yield Broken(f"request {index}, {share:.0%} of it", data[: int(len(data) * share)], whole=False)
