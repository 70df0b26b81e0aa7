"""Triton's own client against the real server: a whole session, in each of the client's forms."""

import asyncio
import base64
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from inference.preprocessing import Preprocessing
from tests.conftest import BLUE, GREEN, RED
from tests.service.conftest import MAX_IMAGES, Server

Picture = Callable[..., bytes]
JSON = dict[str, Any]
PREPROCESSING = Preprocessing(resize=36, crop=32)
ALGORITHMS = (None, "gzip", "deflate")


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=4) as made:
        yield made


def encoded(*pictures: bytes, shape: list[int] | None = None) -> triton.InferInput:
    tensor = triton.InferInput("encoded", shape or [len(pictures), 1], "BYTES")
    return tensor.set_data_from_numpy(np.array(pictures, object).reshape(tensor.shape()))


def crops(*pictures: bytes, binary: bool = True) -> triton.InferInput:
    stacked = np.stack([PREPROCESSING(picture) for picture in pictures])
    return triton.InferInput("images", list(stacked.shape), "UINT8").set_data_from_numpy(stacked, binary)


def asked(name: str, **options: object) -> triton.InferRequestedOutput:
    return triton.InferRequestedOutput(name, **options)


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    server = client.get_server_metadata()
    assert server["name"] == "petalpaw"
    assert {"binary_tensor_data", "classification", "model_configuration"} <= set(server["extensions"])
    assert client.is_model_ready("colours")
    assert client.is_model_ready("colours", "1")
    assert not client.is_model_ready("colours", "2")
    assert not client.is_model_ready("roses")
    for version in ("", "1"):
        metadata = client.get_model_metadata("tones", version)
        assert metadata["versions"] == ["1"]
        assert {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in metadata["inputs"]} == {
            "images": ("UINT8", [-1, 32, 32, 3]),
            "encoded": ("BYTES", [-1, 1]),
        }
        assert {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in metadata["outputs"]} == {
            "logits": ("FP32", [-1, 3]),
            "probabilities": ("FP32", [-1, 3]),
            "abstained": ("BOOL", [-1, 1]),
            "error": ("BYTES", [-1, 1]),
        }
        config = client.get_model_config("tones", version)
        assert config["max_batch_size"] == MAX_IMAGES
        assert [tensor["name"] for tensor in config["input"] if tensor["optional"]] == ["images", "encoded"]
        assert config["parameters"]["labels"]["string_value"] == '["warm", "leafy", "cold"]'


@pytest.mark.parametrize("sent", ALGORITHMS)
@pytest.mark.parametrize("returned", ALGORITHMS)
def test_encoded_pictures(
    client: triton.InferenceServerClient, picture: Picture, sent: str | None, returned: str | None
) -> None:
    pictures = [picture(colour) for colour in (RED, GREEN, BLUE)] * 8
    result = client.infer(
        "colours",
        [encoded(*pictures)],
        request_id="a request",
        request_compression_algorithm=sent,
        response_compression_algorithm=returned,
        outputs=[asked("logits"), asked("probabilities"), asked("abstained"), asked("error")],
    )
    assert result.get_response()["id"] == "a request"
    assert result.get_response()["parameters"]["device"] == "cpu"
    assert result.as_numpy("logits").dtype == np.float32
    assert result.as_numpy("logits").argmax(axis=1).tolist() == [0, 1, 2] * 8
    assert result.as_numpy("probabilities").sum(axis=1) == pytest.approx(np.ones(24), abs=1e-6)
    assert result.as_numpy("abstained").tolist() == [[False]] * 24
    assert result.as_numpy("error").tolist() == [[b""]] * 24


def test_crops_and_pictures_and_classify_agree(
    client: triton.InferenceServerClient, server: Server, picture: Picture
) -> None:
    pictures = [picture(colour, seed=7) for colour in (GREEN, BLUE)]
    from_pictures = client.infer("colours", [encoded(*pictures)])
    flat = client.infer("colours", [encoded(*pictures, shape=[2])])
    from_crops = client.infer("colours", [crops(*pictures)], model_version="1")
    from_json = client.infer("colours", [crops(*pictures, binary=False)], outputs=[asked("logits", binary_data=False)])
    expected = from_pictures.as_numpy("logits").tolist()
    assert expected == flat.as_numpy("logits").tolist()
    assert expected == from_crops.as_numpy("logits").tolist()
    assert expected == from_json.as_numpy("logits").tolist()
    files = [("images", (f"{index}.jpg", data)) for index, data in enumerate(pictures)]
    predictions = server.client.post("/classify?model=colours", files=files).json()["predictions"]
    probabilities = from_pictures.as_numpy("probabilities").max(axis=1)
    assert probabilities == pytest.approx([one["probability"] for one in predictions], rel=1e-6)


def test_pictures_in_json_are_base64(client: triton.InferenceServerClient, picture: Picture) -> None:
    text = base64.b64encode(picture(BLUE))
    tensor = triton.InferInput("encoded", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[text]], object), binary_data=False)
    assert client.infer("colours", [tensor]).as_numpy("logits").argmax() == 2


@pytest.mark.parametrize("binary", [True, False])
def test_classification(client: triton.InferenceServerClient, picture: Picture, binary: bool) -> None:
    outputs = [asked("probabilities", class_count=2, binary_data=binary), asked("logits", class_count=99)]
    result = client.infer("tones", [encoded(picture(GREEN), picture(RED))], outputs=outputs)
    best = result.as_numpy("probabilities")
    assert best.shape == (2, 2)
    value, index, label = (best[0, 0].decode() if binary else best[0, 0]).split(":")
    assert (index, label) == ("1", "leafy")
    assert 0.5 < float(value) <= 1
    assert [one.split(b":")[2] for one in result.as_numpy("logits")[1]] == [b"warm", b"cold", b"leafy"]


def test_a_timeout_drops_what_nobody_waits_for(client: triton.InferenceServerClient, picture: Picture) -> None:
    with pytest.raises(InferenceServerException, match=r"deadline_exceeded|overloaded"):
        client.infer("colours", [encoded(picture())], timeout=1)
    assert client.infer("colours", [encoded(picture())], timeout=60_000_000).as_numpy("logits").shape == (1, 3)


def test_a_bad_picture_among_good_ones(client: triton.InferenceServerClient, picture: Picture) -> None:
    mixed = [encoded(picture(), b"text", b"", picture(BLUE))]
    with pytest.raises(InferenceServerException, match=r"encoded\[1\], the first of 2 .* 'error'") as refused:
        client.infer("colours", mixed)
    assert refused.value.status() == "415"
    for binary in (True, False):
        outputs = [
            *(asked(name, binary_data=binary) for name in ("logits", "probabilities", "abstained", "error")),
        ]
        result = client.infer("colours", mixed, outputs=outputs)
        logits = result.as_numpy("logits")
        assert np.isnan(logits).all(axis=1).tolist() == [False, True, True, False]
        assert logits[[0, 3]].argmax(axis=1).tolist() == [0, 2]
        assert np.isnan(result.as_numpy("probabilities")[1]).all()
        assert result.as_numpy("abstained").tolist() == [[False], [True], [True], [False]]
        errors = [one.decode() if binary else one for one in result.as_numpy("error").ravel()]
        assert [one.partition(":")[0] for one in errors] == ["", "image_unsupported", "image_empty", ""]
    classes = client.infer("colours", mixed, outputs=[asked("logits", class_count=1), asked("error")])
    assert [one.partition(b":")[2][:5] for one in classes.as_numpy("logits").ravel()] == [b"0:red", b"", b"", b"2:blu"]


def test_statistics(client: triton.InferenceServerClient, picture: Picture) -> None:
    def now(**which: str) -> JSON:
        (found,) = client.get_inference_statistics("colours", **which)["model_stats"]
        return found

    before = now()
    client.infer("colours", [encoded(picture(), picture())])
    client.infer("colours", [crops(picture())])
    with pytest.raises(InferenceServerException):
        client.infer("colours", [encoded(picture(), b"text")])
    after = now(model_version="1")
    assert (after["name"], after["version"]) == ("colours", "1")
    assert after["last_inference"] > 1_700_000_000_000
    assert after["inference_count"] - before["inference_count"] == 4
    assert after["execution_count"] - before["execution_count"] == 4
    grown = {
        stage: after["inference_stats"][stage]["count"] - before["inference_stats"][stage]["count"]
        for stage in after["inference_stats"]
    }
    assert grown["success"] == 2
    assert grown["fail"] == 1
    assert grown["compute_infer"] == 4
    assert grown["compute_input"] >= 3
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    assert [batch["batch_size"] for batch in after["batch_stats"]] == [1]
    names = [stats["name"] for stats in client.get_inference_statistics()["model_stats"]]
    assert names == ["colours", "tones"]
    with pytest.raises(InferenceServerException, match="model_unknown"):
        client.get_inference_statistics("roses")


def test_asynchronous_by_gevent(client: triton.InferenceServerClient, picture: Picture) -> None:
    under_way = [client.async_infer("colours", [encoded(picture(colour))]) for colour in (RED, GREEN, BLUE)]
    assert [each.get_result().as_numpy("logits").argmax() for each in under_way] == [0, 1, 2]


def test_asynchronous_by_asyncio(server: Server, picture: Picture) -> None:
    async def session() -> list[int]:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert await client.is_server_ready()
            assert (await client.get_server_metadata())["name"] == "petalpaw"
            assert await client.is_model_ready("colours", "1")
            assert not await client.is_model_ready("roses")
            assert (await client.get_model_metadata("colours"))["name"] == "colours"
            assert (await client.get_model_config("colours"))["name"] == "colours"
            assert {one["state"] for one in await client.get_model_repository_index()} == {"READY"}
            assert (await client.get_inference_statistics("colours"))["model_stats"][0]["version"] == "1"
            classes = await client.infer(
                "colours",
                [encoded(picture(BLUE))],
                outputs=[asked("logits", class_count=1)],
                request_compression_algorithm="gzip",
                response_compression_algorithm="deflate",
            )
            assert classes.as_numpy("logits")[0, 0].endswith(b":2:blue")
            results = await asyncio.gather(
                *(client.infer("colours", [encoded(picture(colour))]) for colour in (RED, GREEN, BLUE)),
                client.infer("colours", [crops(picture(BLUE))], response_compression_algorithm="gzip"),
            )
            with pytest.raises(InferenceServerException, match="model_unknown"):
                await client.infer("roses", [encoded(picture())])
            with pytest.raises(InferenceServerException, match="forbidden"):
                await client.unload_model("colours")
            return [int(result.as_numpy("logits").argmax()) for result in results]

    assert asyncio.run(session()) == [0, 1, 2, 2]


def test_what_is_not_supported_is_refused_in_the_protocols_form(
    client: triton.InferenceServerClient, picture: Picture
) -> None:
    refused = [
        lambda: client.get_system_shared_memory_status(),
        lambda: client.register_system_shared_memory("region", "/key", 16),
        lambda: client.unregister_cuda_shared_memory(),
        lambda: client.get_trace_settings(),
        lambda: client.update_log_settings({"log_info": False}),
    ]
    for call in refused:
        with pytest.raises(InferenceServerException, match="path_unknown") as error:
            call()
        assert error.value.status() in ("404", "405")
    shared = triton.InferInput("images", [1, 32, 32, 3], "UINT8")
    shared.set_shared_memory("region", 3072)
    with pytest.raises(InferenceServerException, match="shared memory is not supported"):
        client.infer("colours", [shared])
    output = asked("logits")
    output.set_shared_memory("region", 12)
    with pytest.raises(InferenceServerException, match="shared memory is not supported"):
        client.infer("colours", [encoded(picture())], outputs=[output])


def test_the_error_form_holds_for_every_address(server: Server) -> None:
    for method, path, status, code in [
        ("GET", "/v2/nothing", 404, "path_unknown"),
        ("DELETE", "/v2", 405, "method_unsupported"),
        ("GET", "/v2/models/colours/infer", 405, "method_unsupported"),
        ("GET", "/v2/models/roses", 404, "model_unknown"),
        ("GET", "/v2/models/colours/versions/9/config", 404, "model_unknown"),
    ]:
        response = server.client.request(method, path)
        assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
        assert set(response.json()) == {"error"}
        assert response.json()["error"].startswith(f"{code}: ")
