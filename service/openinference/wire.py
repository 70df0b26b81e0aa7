"""What travels: a JSON object, and behind it the tensors that it announces in binary form (Triton's extension).

Inference-Header-Content-Length    bytes of the JSON object; needed when anything follows it
Content-Encoding, Accept-Encoding  gzip or deflate, around all of that
"""

import json
import re
import zlib
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from inference.errors import ParameterInvalid, RequestTooLarge
from inference.manifest import problems
from service.openinference.messages import InferRequest, RequestInput

HEADER_LENGTH = "Inference-Header-Content-Length"

T = TypeVar("T", bound=BaseModel)

_MOST_VALUES = 1_000_000
"""Values in a request's JSON object. Each takes up to 64 bytes once it is read, however short its text is."""

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""zlib's window bits; "deflate" means zlib's format in HTTP."""

_OFFER = re.compile(r"([\w-]+)\s*(;\s*q=0(?:\.0*)?(?![\d.]))?[^,]*")
"""One of Accept-Encoding's names, and whether its quality is 0, which means that it is not wanted."""

_WORTH_COMPRESSING = 1024
"""Bytes; shorter answers fit in one packet anyway."""


@dataclass(frozen=True, slots=True)
class Message:
    """A request as it came; `binary` holds the bytes of each input that sent any, by the input's index."""

    request: InferRequest
    binary: dict[int, memoryview]


def read_message(body: bytearray, header_length: str | None) -> Message:
    """Take a body apart. Raises ParameterInvalid or RequestTooLarge."""
    end = _json_length(header_length, len(body))
    request = read_json(body[:end], InferRequest)
    return Message(request, _binary(request.inputs, memoryview(body)[end:]))


def read_json(text: bytearray, kind: type[T]) -> T:
    """A JSON object of the protocol. Raises ParameterInvalid, or RequestTooLarge for more values than are read."""
    if sum(map(text.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise RequestTooLarge(
            f"more than {_MOST_VALUES:,} values in JSON; send tensors in binary form, or encoded pictures as BYTES"
        )
    try:
        content = json.loads(text, object_pairs_hook=_each_once, parse_constant=_not_json)
    # RecursionError: arrays in arrays in arrays; ValueError: not JSON, not UTF-8, or a number of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise ParameterInvalid(f"the request is not JSON that can be read: {error}") from None
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ParameterInvalid(f"the request is not one of the protocol: {problems(error)}") from None


def decompressed(body: bytearray, encoding: str, limit: int) -> bytearray:
    """A body without its Content-Encoding. Raises ParameterInvalid, or RequestTooLarge beyond `limit` bytes."""
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOWS:
        raise ParameterInvalid(f"Content-Encoding {encoding[:64]!r} is not understood; send gzip, deflate or none")
    stream = zlib.decompressobj(_WINDOWS[encoding])
    try:
        whole = bytearray(stream.decompress(body, limit + 1))
    except zlib.error as error:
        raise ParameterInvalid(f"the body is not {encoding} that can be read: {error}") from None
    if len(whole) > limit:
        raise RequestTooLarge(f"the body is larger than {limit:,} bytes without its {encoding}; send fewer pictures")
    if not stream.eof or stream.unused_data:
        raise ParameterInvalid(f"the {encoding} of the body ends early or is followed by something else")
    return whole


def compressed(body: bytes, accepted: str) -> tuple[bytes, dict[str, str]]:
    """A body in a compression that the client accepts, and the headers that say so; short ones stay as they are."""
    offers = {name.lower() for name, refused in _OFFER.findall(accepted) if not refused}
    encoding = next((name for name in _WINDOWS if name in offers), None)
    if encoding is None or len(body) < _WORTH_COMPRESSING:
        return body, {}
    stream = zlib.compressobj(wbits=_WINDOWS[encoding])
    return stream.compress(body) + stream.flush(), {"Content-Encoding": encoding}


def _json_length(said: str | None, size: int) -> int:
    if said is None:
        return size
    if not (said.isascii() and said.isdigit() and len(said) <= 18 and 0 < int(said) <= size):
        raise ParameterInvalid(
            f"{HEADER_LENGTH} is {said[:64]!r}; it must be the length of the JSON object that the body begins with, "
            f"1 to {size} here"
        )
    return int(said)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is given twice in one object")
    return content


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _binary(inputs: tuple[RequestInput, ...], rest: memoryview) -> dict[int, memoryview]:
    """The binary parts, in the order of the inputs that announce them; they must fill `rest` exactly."""
    found = {}
    start = 0
    for index, tensor in enumerate(inputs):
        size = tensor.parameters.binary_data_size
        if size is not None:
            found[index] = rest[start : start + size]
            start += size
    if start != len(rest):
        raise ParameterInvalid(
            f"the inputs announce {start} bytes of binary data, but {len(rest)} follow the JSON object; "
            f"set 'binary_data_size' of each and {HEADER_LENGTH}"
        )
    return found
