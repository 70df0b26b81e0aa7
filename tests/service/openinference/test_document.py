"""The protocol's addresses in the OpenAPI document, and answers as it promises them."""

import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.service.test_openapi import conforms

JSON = dict[str, Any]
OF_MODEL = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> JSON:
    found: JSON = client.get("/docs.json").json()
    return found


def test_the_document_has_every_address(document: JSON) -> None:
    expected = {path + tail for path in OF_MODEL for tail in ("", "/ready", "/config", "/stats", "/infer")}
    assert expected | {"/v2", "/v2/health/live", "/v2/health/ready"} <= document["paths"].keys()
    for path in expected:
        ((_, said),) = document["paths"][path].items()
        assert [one["name"] for one in said["parameters"]] == ["name", *(["version"] if "version" in path else [])]


def test_answers_are_as_documented(client: httpx.Client, document: JSON, picture: Callable[..., bytes]) -> None:
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats"):
        conforms(document, path, "get", client.get(path))
    for tail in ("", "/ready", "/stats"):
        conforms(document, OF_MODEL[0] + tail, "get", client.get(f"/v2/models/colours{tail}"))
        conforms(document, OF_MODEL[1] + tail, "get", client.get(f"/v2/models/colours/versions/7{tail}"))
    data = [base64.b64encode(picture()).decode(), "aGk="]
    tensor = {"name": "encoded", "shape": [2, 1], "datatype": "BYTES", "data": data}
    outputs = [{"name": "logits"}, {"name": "error"}]
    for content in ({"inputs": [tensor]}, {"inputs": [tensor], "outputs": outputs}, {}):
        conforms(document, OF_MODEL[0] + "/infer", "post", client.post("/v2/models/colours/infer", json=content))
