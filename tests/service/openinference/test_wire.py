"""What travels, without a server: compression, and bodies whose bytes were changed at random."""

import gzip
import json
import random
import zlib

import pytest

from inference.errors import Overloaded, PetalpawError
from service.openinference.signature import TensorSignature
from service.openinference.tensors import read_input
from service.openinference.wire import compressed, decompressed, read_message
from service.problem import refusal

SIGNATURES = (TensorSignature("images", "UINT8", (4, 4, 3)), TensorSignature("encoded", "BYTES", (1,)))
LONG = b"answer " * 1000


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("br;q=1.0, DEFLATE;q=0.5", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0.0,deflate;q=0", None),
        ("gzip;q=0.01", "gzip"),
        ("", None),
        ("*", None),
        ("identity", None),
        ("xgzip, gzipx", None),
    ],
)
def test_answers_are_compressed_as_the_client_accepts(accepted: str, encoding: str | None) -> None:
    body, headers = compressed(LONG, accepted)
    assert headers.get("Content-Encoding") == encoding
    opened = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[encoding](body)
    assert opened == LONG
    assert compressed(LONG[:1000], accepted) == (LONG[:1000], {})


def test_what_was_compressed_comes_back() -> None:
    for pack, name in ((gzip.compress, "gzip"), (zlib.compress, "deflate"), (bytes, "identity"), (bytes, "")):
        assert decompressed(bytearray(pack(LONG)), name, len(LONG)) == LONG


def bodies() -> list[tuple[bytes, str | None]]:
    """Right requests in each form, with the length of their JSON object where something follows it."""
    crop = {"name": "images", "shape": [1, 4, 4, 3], "datatype": "UINT8"}
    files = {"name": "encoded", "shape": [2, 1], "datatype": "BYTES"}
    binary = [({**crop, "parameters": {"binary_data_size": 48}}, bytes(range(48)))]
    binary += [({**files, "parameters": {"binary_data_size": 14}}, b"\3\0\0\0abc\3\0\0\0def")]
    found: list[tuple[bytes, str | None]] = []
    for tensor, data in binary:
        head = json.dumps({"id": "1", "inputs": [tensor], "outputs": [{"name": "logits"}]}).encode()
        found.append((head + data, str(len(head))))
    in_json = ({**crop, "data": [[[[1, 2, 3]] * 4] * 4]}, {**files, "data": ["YWJj", "ZGVm"]})
    return [*found, *((json.dumps({"inputs": [tensor]}).encode(), None) for tensor in in_json)]


def test_bytes_changed_at_random_are_read_or_refused() -> None:
    chance = random.Random(7)
    read, statuses = 0, []
    for _ in range(3000):
        whole, length = chance.choice(bodies())
        body = bytearray(whole)
        for _ in range(chance.randint(1, 2)):
            position = chance.randrange(len(body))
            match chance.randrange(4):
                case 0:
                    body[position] = chance.randrange(256)
                case 1:
                    body[position:position] = body[: chance.randrange(60)]
                case 2:
                    del body[position : position + chance.randrange(1, 9)]
                case 3:
                    body[position : position + 1] = chance.choice([b"9", b"-", b"[", b'"', b"null", b"1e9", b"\xff"])
            body = body or bytearray(b"{")
        try:
            pictures = read_input(read_message(body, length), SIGNATURES, max_images=8)
        except PetalpawError as error:
            statuses.append(error.status)
        else:
            assert 1 <= len(pictures) <= 8
            read += 1
    assert min(read, len(statuses)) > 30
    assert {400 <= status < 500 for status in statuses} == {True}


@pytest.mark.parametrize(
    "content",
    [
        {"inputs": [{"name": "images", "shape": ["a"] * 300_000, "datatype": "UINT8"}]},
        {"inputs": [{}] * 300_000},
        {"inputs": [], "outputs": [7] * 300_000},
        {"inputs": [{"name": 7, "shape": [1], "datatype": "x" * 300_000}]},
        {"inputs": [{"name": "x" * 300_000, "shape": [1], "datatype": "BYTES", "data": ["aGk="]}]},
        {"inputs": [{"name": "encoded", "shape": [1], "datatype": "x" * 300_000, "data": ["aGk="]}]},
        {"inputs": [{"name": "encoded", "shape": [2**31 - 1], "datatype": "BYTES", "data": ["aGk="]}]},
        {str(key): 7 for key in range(300_000)},
    ],
    ids=range(8),
)
def test_a_refusal_is_short_however_much_is_wrong(content: dict[str, object]) -> None:
    with pytest.raises(PetalpawError) as refused:
        read_input(read_message(bytearray(json.dumps(content).encode()), None), SIGNATURES, max_images=8)
    assert len(refused.value.detail) < 500


def test_a_refusal_says_when_to_try_again() -> None:
    response = refusal("/v2/models/colours/infer", Overloaded("the queue is full", 3))
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    assert json.loads(bytes(response.body)) == {"error": "overloaded: the queue is full"}
    for path in ("/v2", "/v2/", "/v2/nothing"):
        assert refusal(path, PetalpawError("x")).media_type == "application/json"
    for path in ("/v20", "/V2", "/models/v2"):
        assert refusal(path, PetalpawError("x")).media_type == "application/problem+json"
