"""Where a multipart body is cut on its way says nothing about what is in it."""

import asyncio
from collections.abc import Iterable, Iterator

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
SETTINGS = Settings()
ORDER = Order((Picture(b"\r\nfirst\r\n", "a.jpg"), Picture(b"\r\n", "b.jpg")), None, None, 2)


def order(chunks: Iterable[bytes], kind: bytes = b"multipart/form-data; boundary=B") -> Order:
    """What is read from a body that comes in these pieces."""
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0)

    headers = [(b"content-type", kind)]
    scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "headers": headers}
    return asyncio.run(read_order(Request(scope, receive), SETTINGS))


def at_every_cut(body: bytes) -> Iterator[list[bytes]]:
    """The body whole, in two pieces, and byte by byte."""
    yield from ([body[:at], body[at:]] for at in range(len(body)))
    yield [body[at : at + 1] for at in range(len(body))]


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\n", b"\r\nan epilogue, which nobody reads\r\n--B\r\n"])
def test_every_cut_gives_the_same(end: bytes) -> None:
    for chunks in at_every_cut(WHOLE + end):
        assert order(chunks) == ORDER, chunks


@pytest.mark.parametrize("preamble", [b"", b"hello", b"\r\n--\r\n--A--", b"of x--B\r\n, not a line of its own\r\n--"])
def test_text_before_the_first_boundary_is_ignored_at_every_cut(preamble: bytes) -> None:
    for chunks in at_every_cut(preamble + b"\r\n" + WHOLE):
        assert order(chunks) == ORDER, chunks


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
        (b'a.jpg; x="; filename=b.jpg"', "a.jpg"),
        (b'"a.jpg"; x="; filename=b.jpg"', "a.jpg"),
    ],
)
def test_file_names_with_quotes_and_without(said: bytes, read: str | None) -> None:
    body = HEAD % b"images" + b"; filename=" + said + b"\r\n\r\nx\r\n--B--"
    assert order([body]).pictures == (Picture(b"x", read),)


@pytest.mark.parametrize("length", [b"0", b"5", b"99", b"1\r\nContent-Length: 2", b"five", b" 05 "])
def test_what_a_part_says_of_its_length_is_ignored(length: bytes) -> None:
    body = HEAD % b"images" + b'; filename="a.jpg"\r\nContent-Length: ' + length + b"\r\n\r\nfirst\r\n--B--"
    assert order([body]).pictures == (Picture(b"first", "a.jpg"),)


def test_a_file_name_inside_a_value_is_none() -> None:
    body = WHOLE.replace(b'name="top_k"', b'name="top_k"; x="; filename=b.jpg"')
    assert order([body]) == ORDER


PICTURE = HEAD % b"images" + b'; filename="a.jpg"\r\n%b\r\n\r\nfirst\r\n--B--'
LONGEST = 4224
"""From so many bytes on a line of a part's head is refused."""


@pytest.mark.parametrize(
    "line",
    [
        b"\r\n".join([b"Content-Length: 5"] * 100_000),
        b"content-length",
        b"Content-Length: ".ljust(LONGEST, b"5"),
        b"X: ".ljust(LONGEST, b"x"),
        b"X: a\nY: b",
        b"X: a\r\n b",
        b'Content-Disposition: form-data; name="images"; filename="b.jpg"',
    ],
    ids=["flood", "no colon", "long length", "long", "line feed", "folded", "second disposition"],
)
def test_lines_that_no_part_may_have(line: bytes) -> None:
    body = PICTURE % line
    around = len(body) - len(b"\r\n\r\nfirst\r\n--B--")
    for at in (0, len(HEAD), around, around + 1, around + 2, body.find(b"\n b") + 1, body.find(b"\nY") + 1):
        with pytest.raises(ParameterInvalid, match="cannot be read"):
            order([body[:at], body[at:]])


@pytest.mark.parametrize("line", [b"Content-Lengthy: 99", b"X: ".ljust(LONGEST - 1, b"x"), b"content-length : 99"])
def test_lines_that_say_nothing(line: bytes) -> None:
    body = PICTURE % line
    for at in (0, *range(len(body) - 20, len(body))):
        assert order([body[:at], body[at:]]).pictures == (Picture(b"first", "a.jpg"),)


@pytest.mark.parametrize(
    "parameter",
    [
        b"boundary*=us-ascii''a%0Ab",
        b"boundary*=%00''ab",
        b"boundary*=idna''B.%2e",
        b"boundary*=undefined''B",
        b"boundary*" + b"9" * 5000 + b"=B",
        b'x="; boundary=B"',
        b'boundary="a\nb"',
        b'boundary=""',
        b"boundary=\xe4",
    ],
)
def test_boundaries_that_are_none(parameter: bytes) -> None:
    with pytest.raises(ParameterInvalid, match="must name its boundary"):
        order([WHOLE], b"multipart/form-data; " + parameter)


@pytest.mark.parametrize("parameter", [b"boundary=B", b'Boundary = "B" ; x=y', b'x="; boundary=C"; boundary=B'])
def test_boundaries_as_they_may_be_named(parameter: bytes) -> None:
    assert order([WHOLE], b"multipart/form-data; " + parameter) == ORDER
