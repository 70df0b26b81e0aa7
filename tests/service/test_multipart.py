"""Where a multipart body is cut on its way says nothing about what is in it."""

import asyncio
from collections.abc import Iterable

import pytest
from starlette.requests import Request
from starlette.types import Message

from inference.errors import ParameterInvalid
from service.body import Order, Picture, read_order
from service.settings import Settings

HEAD = b'--B\r\nContent-Disposition: form-data; name="%b"'
WHOLE = (
    HEAD % b"images" + b'; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n\r\nfirst\r\n\r\n'
    + HEAD % b"top_k" + b"\r\n\r\n2\r\n"
    + HEAD % b"images" + b'; filename="b.jpg"\r\n\r\n\r\n\r\n--B--'
)  # fmt: skip
ORDER = Order((Picture(b"\r\nfirst\r\n", "a.jpg"), Picture(b"\r\n", "b.jpg")), None, None, 2)


def order(chunks: Iterable[bytes]) -> Order:
    """What is read from a body that comes in these pieces."""
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0)

    headers = [(b"content-type", b"multipart/form-data; boundary=B")]
    scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "headers": headers}
    return asyncio.run(read_order(Request(scope, receive), Settings()))


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\n", b"\r\nan epilogue, which nobody reads\r\n--B\r\n"])
def test_every_cut_gives_the_same(end: bytes) -> None:
    body = WHOLE + end
    assert order(body[at : at + 1] for at in range(len(body))) == ORDER
    for at in range(len(body)):
        assert order([body[:at], body[at:]]) == ORDER, body[:at]


def test_every_early_end_is_refused() -> None:
    for at in range(len(WHOLE)):
        with pytest.raises(ParameterInvalid):
            order([WHOLE[:at]])
        with pytest.raises(ParameterInvalid):
            order(WHOLE[each : each + 1] for each in range(at))


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (b"IMG (1).jpg", "IMG (1).jpg"),
        (b"(1).jpg", "(1).jpg"),
        ("Blümchen [2].jpg".encode(), "Blümchen [2].jpg"),
        (b"a.jpg; filename*=utf-8''b.jpg", "a.jpg"),
        (b" a.jpg ", "a.jpg"),
        (rb"C:\Photos\my dog.jpg", "my dog.jpg"),
        (b'"a; filename=b.jpg"', "a; filename=b.jpg"),
        (b'"a\\"b.jpg"', 'a"b.jpg'),
        (b"", None),
    ],
)
def test_file_names_with_quotes_and_without(said: bytes, read: str | None) -> None:
    body = HEAD % b"images" + b"; filename=" + said + b"\r\n\r\nx\r\n--B--"
    assert order([body]).pictures == (Picture(b"x", read),)


@pytest.mark.parametrize("length", [b"0", b"5", b"99", b"1\r\nContent-Length: 2", b"five", b" 05 "])
def test_what_a_part_says_of_its_length_is_ignored(length: bytes) -> None:
    body = HEAD % b"images" + b'; filename="a.jpg"\r\nContent-Length: ' + length + b"\r\n\r\nfirst\r\n--B--"
    assert order([body]).pictures == (Picture(b"first", "a.jpg"),)
