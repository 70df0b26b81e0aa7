"""The three bodies of POST /classify, read within limits into one `Order`.

    multipart/form-data                        parts `images` (files), fields `model`, `version`, `top_k`
    image/* or application/octet-stream        the picture itself
    application/json                           {"images": ["<base64>", …], "model": …, "version": …, "top_k": …}

`model` (a name, or name/version), `version` and `top_k` may stand in the query of each. Nothing is written to disk, and
of a body that is too large no more is kept than the limit.
"""

import binascii
import json
import re
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from dataclasses import dataclass
from typing import Any

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserError,
    PushMultipartParser,
    StrictParserError,
    content_disposition_unquote,
    header_unquote,
)
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from inference.errors import ImageUnsupported, ParameterInvalid, PetalpawError, RequestTooLarge, TooManyImages
from service.settings import Settings

PARAMETERS = ("model", "version", "top_k")
FIELDS = ("images", *PARAMETERS)
_BLANKS = " \t\r\n"
_MAX_PARAMETER_BYTES = 1024
_MAX_BOUNDARY = 256
_MAX_HEADERS = 32
_PARAMETER = re.compile(r';[ \t]*([^;="\s]+)[ \t]*=[ \t]*("(?:\\.|[^"\\])*"|[^;]*)')
_SPARE_VALUES = 64
"""Commas and brackets that a JSON body may hold beyond those of its pictures: other keys, a title with commas."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a request: its bytes, or why there are none. `filename` is what the client called it."""

    data: bytes | PetalpawError
    filename: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What a client wants classified, and how; None where it did not say."""

    pictures: tuple[Picture, ...]
    model: str | None
    version: str | None
    top_k: int | None


async def read_order(request: Request, settings: Settings) -> Order:
    """Read a request's body in whichever form it has.

    Raises RequestTooLarge, TooManyImages, ParameterInvalid, ImageUnsupported for a body of no known type, and
    starlette's ClientDisconnect when the client leaves half-way.
    """
    parameters = request.query_params.multi_items()
    _known(parameters, PARAMETERS, "query parameter")
    chunks = body_chunks(request, settings.max_body_bytes)
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        pictures, fields = await _from_multipart(content_type, chunks, settings.max_images)
        parameters += fields
    elif kind == "application/json":
        arrived = [chunk async for chunk in chunks]
        # Decoding megabytes of base64 would hold up the event loop.
        pictures, fields = await run_in_threadpool(_from_json, arrived, settings.max_images)
        parameters += fields
    elif kind.startswith("image/") or kind == "application/octet-stream":
        pictures = [Picture(b"".join([chunk async for chunk in chunks]))]
    else:
        raise ImageUnsupported(
            f"a body of type {kind or 'none'!r} holds no picture; send multipart/form-data with parts named 'images', "
            "application/json with base64, or a picture itself as image/* or application/octet-stream"
        )
    if not pictures:
        raise ParameterInvalid("there is no picture in the request; send at least one as 'images'")
    if len(pictures) > settings.max_images:
        raise _too_many(settings.max_images)
    return Order(tuple(pictures), *_model(parameters), _top_k(parameters))


async def body_chunks(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body as it arrives. Raises RequestTooLarge as soon as it is known to be."""
    error = RequestTooLarge(f"the body is larger than {limit:,} bytes; send fewer or smaller pictures per request")
    if int(request.headers.get("content-length", 0)) > limit:
        raise error
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise error
        yield chunk


async def read_body(request: Request, limit: int) -> bytearray:
    """The whole body. Raises RequestTooLarge."""
    body = bytearray()
    async for chunk in body_chunks(request, limit):
        body += chunk
    return body


class _Parser(PushMultipartParser):  # type: ignore[misc]
    """The library's, but for what it refuses and others read, and for what it reads in one of two ways.

    A part's own Content-Length must be ignored (RFC 7578, 4.8), and a file name without quotes ends at a semicolon.
    """

    def _on_segment_headerline(self, line: bytes) -> None:
        # The library refuses both, but only where what has arrived of the body ends right behind them.
        if b"\n" in line or len(line) >= self.max_header_size:
            raise ParserError("a header of a part is too long, or has an end of line within")
        name = line.decode("latin-1").partition(":")[0]
        # Under another name it counts as a header, and says nothing.
        super()._on_segment_headerline(b"X-" + line if name.strip().lower() == "content-length" else line)

    def _create_segment(self, headerlist: list[tuple[str, str]]) -> MultipartSegment:
        if [name for name, _ in headerlist].count("Content-Disposition") > 1:
            raise ParserError("a part has more than one Content-Disposition")
        part = super()._create_segment(headerlist)
        filename = _parameters(part["Content-Disposition"]).get("filename")
        part.filename = None if filename is None else content_disposition_unquote(filename, filename=True)
        return part


class _Form:
    """A multipart body that grows: `pictures` and `fields` of the parts that are whole.

    `take` raises ParameterInvalid, TooManyImages and MultipartError.
    """

    def __init__(self, content_type: str, max_images: int) -> None:
        boundary = header_unquote(_parameters(content_type).get("boundary", ""))
        if not (boundary.isascii() and boundary.isprintable() and 1 <= len(boundary) <= _MAX_BOUNDARY):
            raise ParameterInvalid(
                "the content type of a multipart body must name its boundary, "
                f"1 to {_MAX_BOUNDARY} printable ASCII characters"
            )
        self.pictures: list[Picture] = []
        self.fields: list[tuple[str, str]] = []
        self._max_images = max_images
        # Strict: a header folded into many lines would be put together anew with each of them. latin-1 takes any byte.
        self._parser = _Parser(boundary, max_header_count=_MAX_HEADERS, header_charset="latin-1", strict=True)
        self._delimiter = f"\r\n--{boundary}".encode()
        self._preamble: bytes | None = b"\r\n"
        self._part: MultipartSegment | None = None
        self._parts = 0
        self._data: list[bytes] = []

    def take(self, chunk: bytes) -> None:
        """The next bytes of the body; before the first boundary and behind the closing one they say nothing."""
        rest = self._after_preamble(chunk)
        if self._parser.closed or not rest:
            return
        try:
            for event in self._parser.parse(rest):
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event is None:
                    self._end()
                else:
                    self._add(event)
        except StrictParserError:
            if not self._whole():
                raise

    def end(self) -> None:
        """The body has ended. Raises ParameterInvalid if that is too early."""
        if not self._whole():
            raise ParameterInvalid("the multipart body ends before its closing boundary; send it whole")

    def _after_preamble(self, chunk: bytes) -> bytes:
        """What is to be parsed of the next bytes: text before the first boundary is not (RFC 2046, 5.1.1)."""
        if self._preamble is None:
            return chunk
        arrived = self._preamble + chunk
        found = arrived.find(self._delimiter)
        if found < 0:
            self._preamble = arrived[1 - len(self._delimiter) :]
            return b""
        self._preamble = None
        return arrived[found + len(b"\r\n") :]

    def _whole(self) -> bool:
        """Whether the closing boundary was there; nothing more is parsed."""
        try:
            self._parser.close()
        except MultipartError:
            return False
        return True

    def _begin(self, part: MultipartSegment) -> None:
        self._parts += 1
        if self._parts > self._max_images + len(PARAMETERS):
            raise _too_many(self._max_images)
        if part.name not in FIELDS:
            raise _unknown([part.name], FIELDS, "part")
        if (part.filename is not None) != (part.name == "images"):
            raise ParameterInvalid(f"part {part.name!r} must be {'a file' if part.name == 'images' else 'text'}")
        self._part, self._data = part, []

    def _add(self, data: bytes) -> None:
        self._data.append(data)
        if self._part and self._part.filename is None and self._part.bytes_received > _MAX_PARAMETER_BYTES:
            raise ParameterInvalid(f"part {self._part.name!r} has more than {_MAX_PARAMETER_BYTES} bytes")

    def _end(self) -> None:
        assert self._part is not None
        data = b"".join(self._data)
        if self._part.filename is None:
            self.fields.append((self._part.name, _unquoted(data.decode())))
        else:
            self.pictures.append(Picture(data, _decoded(self._part.filename)))
        self._part, self._data = None, []


async def _from_multipart(
    content_type: str, chunks: AsyncIterable[bytes], max_images: int
) -> tuple[list[Picture], list[tuple[str, str]]]:
    form = _Form(content_type, max_images)
    try:
        async for chunk in chunks:
            form.take(chunk)
    except MultipartError as error:
        raise ParameterInvalid(f"the multipart body cannot be read: {error.args[0]}") from None
    except UnicodeError:
        raise ParameterInvalid("the text in the multipart body is not UTF-8") from None
    form.end()
    return form.pictures, form.fields


def _parameters(header: str) -> dict[str, str]:
    """What a header says behind its first semicolon: values as they stand, quotes included, by name in lower case."""
    return {name.lower(): value.strip() for name, value in _PARAMETER.findall(header)}


def _unquoted(value: str) -> str:
    """A field's text; BentoML's client sends it as a JSON string, and no name has quotes of its own."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _decoded(filename: str) -> str | None:
    """A file name of a header that was read as latin-1: UTF-8 where it can be that."""
    try:
        return filename.encode("latin-1").decode() or None
    except UnicodeError:
        return filename


def _from_json(arrived: list[bytes], max_images: int) -> tuple[list[Picture], list[tuple[str, Any]]]:
    """Pictures and parameters of a JSON body. A picture that is not base64 is its own outcome.

    `arrived` is emptied: each form of the body goes as soon as the next is there, so that two are the most.
    """
    body = b"".join(arrived)
    arrived.clear()
    # Millions of small values take many times the body's size once they are read. Base64 has none of these characters.
    if body.count(b",") > max_images + _SPARE_VALUES:
        raise _too_many(max_images)
    if body.count(b"[") + body.count(b"{") > _SPARE_VALUES:
        raise ParameterInvalid('the body nests too much; it must be {"images": ["<base64>", …]}')
    try:
        text = body.decode(json.detect_encoding(body))
        del body
        # Pairs instead of a dict, which would hide that a key is given twice.
        items = json.loads(text, object_pairs_hook=list)
        del text
    # RecursionError: arrays in arrays in arrays; ValueError: not JSON, not UTF-8, or a number of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise ParameterInvalid(f"the body is not JSON that can be read: {error}") from None
    if not isinstance(items, list) or not all(isinstance(item, tuple) for item in items):
        raise ParameterInvalid('the body must be a JSON object: {"images": ["<base64>", …]}')
    _known(items, FIELDS, "key")
    images = _single(items, "images")
    if not isinstance(images, list) or any(isinstance(image, tuple) for image in images):
        raise ParameterInvalid("'images' must be a list of base64 strings")
    pictures = [Picture(from_base64(image, f"images[{index}]")) for index, image in enumerate(images)]
    return pictures, [item for item in items if item[0] != "images"]


def from_base64(text: Any, where: str) -> bytes | ParameterInvalid:
    """The bytes of a base64 string; line breaks, which the base64 command makes, are allowed."""
    if not isinstance(text, str):
        return ParameterInvalid(f"{where} must be a base64 string")
    try:
        if any(blank in text for blank in _BLANKS):
            return binascii.a2b_base64(text.encode("ascii").translate(None, _BLANKS.encode()), strict_mode=True)
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        return ParameterInvalid(f"{where} is not base64 ({error}); send the file's bytes in base64, without a prefix")


def _known(items: Iterable[tuple[str, Any]], expected: tuple[str, ...], what: str) -> None:
    unknown = [name for name, _ in items if name not in expected]
    if unknown:
        raise _unknown(unknown, expected, what)


def _unknown(names: Iterable[str], expected: tuple[str, ...], what: str) -> ParameterInvalid:
    some = ", ".join(repr(name[:64]) for name in sorted(set(names))[:5])
    return ParameterInvalid(f"unknown {what} {some}; expected {', '.join(expected)}")


def _single(items: Iterable[tuple[str, Any]], name: str) -> Any:
    """The value of a parameter, None when it is absent. Raises ParameterInvalid when it is given twice."""
    values = [value for key, value in items if key == name]
    if len(values) > 1:
        raise ParameterInvalid(f"{name!r} is given {len(values)} times; give it once")
    return values[0] if values else None


def _model(parameters: list[tuple[str, Any]]) -> tuple[str | None, str | None]:
    """Name and version; `model` may hold both, as name/version."""
    model, version = _text(parameters, "model"), _text(parameters, "version")
    name, _, inside = (model or "").partition("/")
    if inside and version not in (None, inside):
        raise ParameterInvalid(f"'model' asks for version {inside[:64]!r}, 'version' for {version!r:.64}; give one")
    return name or None, inside or version or None


def _text(parameters: Iterable[tuple[str, Any]], name: str) -> str | None:
    value = _single(parameters, name)
    if value is not None and not isinstance(value, str):
        raise ParameterInvalid(f"{name!r} must be a string")
    return value


def _top_k(parameters: Iterable[tuple[str, Any]]) -> int | None:
    value = _single(parameters, "top_k")
    if value is None:
        return None
    text = value if isinstance(value, str) else "" if isinstance(value, bool) else str(value)
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= 1):
        raise ParameterInvalid(f"'top_k' must be a whole number of 1 or more, not {str(value)[:64]!r}")
    return int(text)


def _too_many(limit: int) -> TooManyImages:
    return TooManyImages(f"more than {limit} pictures in one request; send them in several")
