"""The input tensors of a request as pictures or crops."""

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from inference.errors import ParameterInvalid, TooManyImages
from inference.preprocessing import Crop
from service.body import from_base64
from service.openinference.messages import RequestInput
from service.openinference.signature import ENCODED, TensorSignature
from service.openinference.wire import Message
from service.streams import Input

LENGTH = struct.Struct("<I")


def read_input(message: Message, signatures: Sequence[TensorSignature], max_images: int) -> Sequence[Input]:
    """The pictures or crops of the one input of a request, in order; what is not base64 is its own outcome.

    Raises ParameterInvalid, or TooManyImages.
    """
    known = {each.name: each for each in signatures}
    choice = " or ".join(f"{each.name!r} ({each.datatype} {_shape(each)})" for each in signatures)
    if len(message.request.inputs) != 1 or message.request.inputs[0].name not in known:
        names = ", ".join(repr(tensor.name[:64]) for tensor in message.request.inputs) or "none"
        raise ParameterInvalid(f"a request holds one input, {choice}; this one has {names}")
    (tensor,) = message.request.inputs
    _check(tensor, known[tensor.name], max_images)
    data = message.binary.get(0)
    if (data is None) == (tensor.data is None):
        raise ParameterInvalid(f"{tensor.name!r} needs its data either in JSON as 'data' or in binary form, and once")
    if tensor.name == ENCODED:
        return _encoded(tensor, data)
    return list(_crops(tensor, data))


def _check(tensor: RequestInput, expected: TensorSignature, max_images: int) -> None:
    if tensor.parameters.shared_memory_region is not None:
        raise ParameterInvalid("shared memory is not supported; send the tensor in the body")
    if tensor.datatype != expected.datatype:
        raise ParameterInvalid(f"{tensor.name!r} is {expected.datatype}, not {tensor.datatype[:64]!r}")
    # One picture per row either way, so the axis of size 1 may be left out.
    flat = expected.row == (1,) and len(tensor.shape) == 1
    if not (flat or tensor.shape[1:] == expected.row) or tensor.shape[0] < 1:
        raise ParameterInvalid(f"{tensor.name!r} has the shape {_shape(expected)}, not {list(tensor.shape)}")
    if tensor.shape[0] > max_images:
        raise TooManyImages(f"more than {max_images} pictures in one request; send them in several")


def _shape(expected: TensorSignature) -> str:
    return f"[batch, {', '.join(map(str, expected.row))}]"


def _crops(tensor: RequestInput, data: memoryview | None) -> Crop:
    """uint8 (batch, height, width, 3)."""
    size = math.prod(tensor.shape)
    if data is not None:
        if len(data) != size:
            raise ParameterInvalid(
                f"{tensor.name!r} has {len(data)} bytes; its shape {list(tensor.shape)} needs {size}"
            )
        return np.frombuffer(data, np.uint8).reshape(tensor.shape)
    values = _flat(tensor)
    if set(map(type, values)) != {int} or min(values) < 0 or max(values) > 255:
        raise ParameterInvalid(f"the values of {tensor.name!r} must be whole numbers from 0 to 255")
    return np.array(values, np.uint8).reshape(tensor.shape)


def _encoded(tensor: RequestInput, data: memoryview | None) -> Sequence[Input]:
    """JSON cannot carry bytes, so there every element is base64; in binary form it is where `content_type` says so."""
    if data is None:
        return [from_base64(text, "the element") for text in _flat(tensor)]
    elements = _elements(tensor, data)
    if tensor.parameters.content_type != "base64":
        return elements
    return [from_base64(element.decode("latin-1"), "the element") for element in elements]


def _elements(tensor: RequestInput, data: memoryview) -> list[bytes]:
    """BYTES in binary form: each element behind its length, four bytes, little-endian."""
    elements: list[bytes] = []
    start = 0
    while len(elements) < tensor.shape[0] and start + LENGTH.size <= len(data):
        (length,) = LENGTH.unpack_from(data, start)
        start += LENGTH.size + length
        elements.append(bytes(data[start - length : start]))
    if len(elements) != tensor.shape[0] or start != len(data):
        raise ParameterInvalid(
            f"the {len(data)} bytes of {tensor.name!r} are not {tensor.shape[0]} elements, each behind its length in "
            "four bytes, little-endian"
        )
    return elements


def _flat(tensor: RequestInput) -> list[Any]:
    """The values of a tensor in JSON, which may be nested as its shape says, or flat."""
    values = tensor.data
    if isinstance(values, list) and values and isinstance(values[0], list):
        for size in tensor.shape[1:]:
            if not all(isinstance(part, list) and len(part) == size for part in values):
                raise ParameterInvalid(f"'data' of {tensor.name!r} is nested otherwise than its shape says")
            values = list(chain.from_iterable(values))
    if not isinstance(values, list) or len(values) != math.prod(tensor.shape):
        raise ParameterInvalid(
            f"'data' of {tensor.name!r} must be a list of {math.prod(tensor.shape)} values, as its shape says"
        )
    return values
