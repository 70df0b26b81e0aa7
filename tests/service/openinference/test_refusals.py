"""Requests that lie, or are wrong as a whole: a 4xx in the protocol's form, and nothing grows or breaks."""

import base64
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.service.conftest import MAX_BODY, MAX_IMAGES, Server
from tests.service.corpus import no_objects

Picture = Callable[..., bytes]
JSON = dict[str, Any]
INFER = "/v2/models/colours/infer"
SIDE = 32
CROP = SIDE * SIDE * 3


def refused(response: httpx.Response, code: str, status: int = 422) -> str:
    """The words of an answer that must be this refusal."""
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    text: str = response.json()["error"]
    assert (response.status_code, text.partition(":")[0]) == (status, code), text
    return text


def images(**changes: Any) -> JSON:
    tensor = {"name": "images", "shape": [1, SIDE, SIDE, 3], "datatype": "UINT8", "data": [0] * CROP, **changes}
    return {"inputs": [tensor]}


def encoded(*elements: Any, **changes: Any) -> JSON:
    tensor = {"name": "encoded", "shape": [len(elements)], "datatype": "BYTES", "data": list(elements), **changes}
    return {"inputs": [tensor]}


def behind(content: JSON, data: bytes, length: object = None) -> tuple[bytes, dict[str, str]]:
    """A body with binary data behind its JSON object, and the header that says where it begins."""
    head = json.dumps(content).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head) if length is None else length)}


def binary(name: str, size: object, **changes: Any) -> JSON:
    shape, datatype = ([1, SIDE, SIDE, 3], "UINT8") if name == "images" else ([1], "BYTES")
    tensor = {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}, **changes}
    return {"inputs": [tensor]}


@pytest.mark.parametrize(
    "content",
    [
        images(name="pictures"),
        images(datatype="FP32"),
        images(datatype="uint8"),
        images(datatype=7),
        images(shape=[1, SIDE, SIDE]),
        images(shape=[1, 3, SIDE, SIDE]),
        images(shape=[0, SIDE, SIDE, 3], data=[]),
        images(shape=[2, SIDE, SIDE, 3]),
        images(shape=[-1, SIDE, SIDE, 3]),
        images(shape=[1.0, SIDE, SIDE, 3]),
        images(shape=[True, SIDE, SIDE, 3]),
        images(shape=[10**30, SIDE, SIDE, 3]),
        images(shape=[2**31 - 1] * 4),
        images(shape=[1] * 1000),
        images(shape=[]),
        images(shape="1,32,32,3"),
        images(data=[0] * (CROP - 1)),
        images(data=[0] * (CROP + 1)),
        images(data=[256] * CROP),
        images(data=[-1] * CROP),
        images(data=[0.5] * CROP),
        images(data=[True] + [0] * (CROP - 1)),
        images(data=["0"] * CROP),
        images(data=[[0] * CROP]),
        images(data=[[[[0] * 3] * SIDE] * SIDE, 0]),
        images(data=[[[[0] * 3] * SIDE] * (SIDE - 1) + [0]]),
        images(data={"0": 0}),
        images(data="AAAA"),
        images(data=None),
        images(data=[]),
        images(parameters={"binary_data_size": CROP}),
        images(parameters=[]),
        images(parameters={"shared_memory_region": "r", "shared_memory_byte_size": CROP}),
        encoded("aGk=", shape=[2]),
        encoded("aGk=", shape=[1, 2]),
        encoded("aGk=", shape=[1, 1, 1]),
        encoded("aGk=", shape=[1], data=[["aGk="]]),
        encoded("aGk=", datatype="STRING"),
        {"inputs": images()["inputs"] * 2},
        {"inputs": images()["inputs"] + encoded("aGk=")["inputs"]},
        {"inputs": images()["inputs"] * 100},
        {"inputs": []},
        {"inputs": {}},
        {"inputs": [[]]},
        {},
        {"inputs": [{"name": "images"}]},
        {**images(), "outputs": [{"name": "scores"}]},
        {**images(), "outputs": [{"name": "logits"}, {"name": "logits"}]},
        {**images(), "outputs": [{"name": "logits"}] * 1000},
        {**images(), "outputs": [{}]},
        {**images(), "outputs": "logits"},
        {**images(), "outputs": [{"name": "abstained", "parameters": {"classification": 1}}]},
        {**images(), "outputs": [{"name": "logits", "parameters": {"classification": 0}}]},
        {**images(), "outputs": [{"name": "logits", "parameters": {"classification": -1}}]},
        {**images(), "outputs": [{"name": "logits", "parameters": {"classification": "2"}}]},
        {**images(), "outputs": [{"name": "logits", "parameters": {"classification": 1e400}}]},
        {**images(), "outputs": [{"name": "logits", "parameters": {"binary_data": 1}}]},
        {**images(), "outputs": [{"name": "logits", "parameters": {"shared_memory_region": "r"}}]},
        {**images(), "parameters": {"binary_data_output": "yes"}},
        {**images(), "id": 7},
        {**images(), "id": "\ud800"},
        images(name="\ud800"),
    ],
    ids=range(62),
)
def test_contents_that_are_not_the_protocols(client: httpx.Client, content: JSON) -> None:
    refused(client.post(INFER, content=json.dumps(content)), "parameter_invalid")


@pytest.mark.parametrize(
    "body",
    [
        *no_objects(b"inputs"),
        b'{"inputs": [{"name": "images", "shape": [1,32,32,3], "datatype": "UINT8", "data": ['
        + b"[" * 500
        + b"]" * 500,
        b'{"inputs": [], "inputs": []}',
        b'{"inputs": [{"name": "encoded", "name": "images"}]}',
        b'{"inputs": [{"name": "images", "shape": [' + b"9" * 5000 + b',32,32,3], "datatype": "UINT8"}]}',
        b'{"inputs": [], "id": NaN}',
        json.dumps(images(data=[float("nan")] * CROP)).encode(),
        json.dumps(images(data=[float("inf")] * CROP)).encode(),
    ],
    ids=range(17),
)
def test_broken_json(client: httpx.Client, body: bytes) -> None:
    refused(client.post(INFER, content=body), "parameter_invalid")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        behind(binary("images", CROP - 1), bytes(CROP - 1)),
        behind(binary("images", CROP), bytes(CROP - 1)),
        behind(binary("images", CROP), bytes(CROP + 1)),
        behind(binary("images", CROP), b""),
        behind(binary("images", -1), b""),
        behind(binary("images", 2**62), b""),
        behind(binary("images", "3072"), bytes(CROP)),
        behind(binary("images", CROP, data=[0] * CROP), bytes(CROP)),
        behind(images(), bytes(CROP)),
        behind(binary("images", CROP), bytes(CROP), length=0),
        behind(binary("images", CROP), bytes(CROP), length=-1),
        behind(binary("images", CROP), bytes(CROP), length=1),
        behind(binary("images", CROP), bytes(CROP), length=10**9),
        behind(binary("images", CROP), bytes(CROP), length="9" * 5000),
        behind(binary("images", CROP), bytes(CROP), length="1e3"),
        behind(binary("images", CROP), bytes(CROP), length=""),
        (behind(binary("images", CROP), bytes(CROP))[0], {}),
        behind(binary("encoded", 3), b"abc"),
        behind(binary("encoded", 0), b""),
        behind(binary("encoded", 8), b"\xff\xff\xff\xffabcd"),
        behind(binary("encoded", 8), b"\x03\0\0\0abcd"),
        behind(binary("encoded", 9), b"\x05\0\0\0abcde", length=3),
        behind(binary("encoded", 16, shape=[1]), b"\x04\0\0\0abcd" * 2),
        behind(binary("encoded", 8, shape=[2]), b"\x04\0\0\0abcd"),
        behind(binary("encoded", 8, shape=[MAX_IMAGES]), b"\0\0\0\0" * 2),
    ],
    ids=range(25),
)
def test_lengths_that_lie(client: httpx.Client, body: bytes, headers: dict[str, str]) -> None:
    refused(client.post(INFER, content=body, headers=headers), "parameter_invalid")


def test_too_many_pictures(client: httpx.Client) -> None:
    many = MAX_IMAGES + 1
    refused(client.post(INFER, json=encoded(*["aGk="] * many)), "too_many_images", 413)
    body, headers = behind(binary("images", CROP * many, shape=[many, SIDE, SIDE, 3]), bytes(CROP * many))
    refused(client.post(INFER, content=body, headers=headers), "too_many_images", 413)
    refused(client.post(INFER, json=images(shape=[2**31 - 1, SIDE, SIDE, 3])), "too_many_images", 413)


def test_millions_of_values_are_refused_before_they_are_read(client: httpx.Client, server: Server) -> None:
    before = server.peak_memory()
    for value in (b"1,", b"[],", b"{},", b'"",'):
        swarm = b'{"inputs": [' + value * ((MAX_BODY - 100) // len(value)) + b"0]}"
        refused(client.post(INFER, content=swarm), "request_too_large", 413)
    assert server.peak_memory() - before < 64 * 2**20


def test_bodies_over_the_limit(client: httpx.Client, server: Server) -> None:
    refused(client.post(INFER, content=bytes(MAX_BODY + 1)), "request_too_large", 413)
    before = server.peak_memory()
    for packed, name in ((gzip.compress, "gzip"), (zlib.compress, "deflate")):
        bomb = packed(bytes(200 * 2**20))
        assert len(bomb) < MAX_BODY
        response = client.post(INFER, content=bomb, headers={"Content-Encoding": name})
        refused(response, "request_too_large", 413)
    assert server.peak_memory() - before < 64 * 2**20


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"{}"),
        ("gzip", b""),
        ("gzip", gzip.compress(b"{}")[:-4]),
        ("gzip", gzip.compress(b"{}") * 2),
        ("gzip", zlib.compress(b"{}")),
        ("deflate", gzip.compress(b"{}")),
        ("deflate", zlib.compress(b"{}") + b"x"),
        ("br", b"{}"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}"))),
        ("x" * 5000, b"{}"),
    ],
    ids=range(10),
)
def test_compression_that_lies(client: httpx.Client, encoding: str, body: bytes) -> None:
    refused(client.post(INFER, content=body, headers={"Content-Encoding": encoding}), "parameter_invalid")


@pytest.mark.parametrize("model", ["roses", "COLOURS", "colours.encoded", "%2e%2e", "colours%00", "x" * 500, "%ff"])
def test_unknown_models(client: httpx.Client, model: str) -> None:
    for tail in ("", "/ready", "/config", "/versions/1"):
        refused(client.get(f"/v2/models/{model}{tail}"), "model_unknown", 404)
    refused(client.post(f"/v2/models/{model}/infer", json=images()), "model_unknown", 404)


@pytest.mark.parametrize("version", ["2", "0", "01", "latest", "%2e%2e", "9" * 500])
def test_unknown_versions(client: httpx.Client, version: str) -> None:
    refused(client.get(f"/v2/models/colours/versions/{version}"), "model_unknown", 404)
    refused(client.post(f"/v2/models/colours/versions/{version}/infer", json=images()), "model_unknown", 404)


def test_one_picture_that_is_no_picture(client: httpx.Client) -> None:
    assert "encoded[0]: " in refused(client.post(INFER, json=encoded("aGk=")), "image_unsupported", 415)
    assert "encoded[0], the first of 2" in refused(
        client.post(INFER, json=encoded("not base64!", "aGk=")), "parameter_invalid"
    )
    refused(client.post(INFER, json=encoded(7)), "parameter_invalid")
    outputs = [{"name": "error"}]
    answer = client.post(INFER, json={**encoded("not base64!", None, "aGk="), "outputs": outputs})
    assert [text.partition(":")[0] for text in answer.json()["outputs"][0]["data"]] == [
        "parameter_invalid",
        "parameter_invalid",
        "image_unsupported",
    ]


def test_what_is_not_known_is_ignored(client: httpx.Client, picture: Picture) -> None:
    """KServe's client repeats the model's name; others send null for what they leave out."""
    text = base64.b64encode(picture()).decode()
    content = {
        **encoded(text, parameters={"content_type": "base64", "later": [1]}),
        "model_name": "colours",
        "id": None,
        "outputs": None,
        "parameters": {"priority": 1, "sequence_id": "a"},
    }
    answer = client.post(INFER, json=content).json()
    assert "id" not in answer
    assert [output["name"] for output in answer["outputs"]] == ["logits", "probabilities", "abstained"]


def test_base64_in_binary_form_where_it_is_said(client: httpx.Client, picture: Picture) -> None:
    text = base64.encodebytes(picture())
    element = len(text).to_bytes(4, "little") + text
    content = binary("encoded", len(element), parameters={"binary_data_size": len(element), "content_type": "base64"})
    body, headers = behind(content, element)
    assert client.post(INFER, content=body, headers=headers).status_code == 200
    body, headers = behind(binary("encoded", len(element)), element)
    refused(client.post(INFER, content=body, headers=headers), "image_unsupported", 415)


def test_nested_and_flat_data_are_the_same(client: httpx.Client) -> None:
    row = [[10, 200, 30]] * SIDE
    nested = client.post(INFER, json=images(data=[[row] * SIDE])).json()
    flat = client.post(INFER, json=images(data=[10, 200, 30] * SIDE * SIDE)).json()
    assert nested == flat
    assert nested["outputs"][0]["data"] == pytest.approx([10 / 32, 200 / 32, 30 / 32])


def test_what_is_refused_is_named_once(client: httpx.Client) -> None:
    text = refused(client.post(INFER, json=images(shape=[-1, SIDE, SIDE, 3])), "parameter_invalid")
    assert text.endswith("inputs.0.shape.0: Input should be greater than or equal to 0")
    refused(client.post(INFER, json=images(shape=[])), "parameter_invalid")
