import base64
from collections.abc import Callable
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate

from tests.service.conftest import Server

JSON = dict[str, Any]


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> JSON:
    found: JSON = client.get("/docs.json").json()
    return found


def test_the_document_is_valid_openapi(document: JSON) -> None:
    validate(document)


def test_the_document_has_every_address(document: JSON) -> None:
    assert {"/classify", "/models", "/models/{name}", "/livez", "/readyz", "/metrics"} <= document["paths"].keys()
    body = document["paths"]["/classify"]["post"]["requestBody"]
    assert set(body["content"]) == {"multipart/form-data", "application/json", "image/*", "application/octet-stream"}
    assert body["content"]["multipart/form-data"]["schema"]["properties"].keys() == {
        "images",
        "model",
        "version",
        "top_k",
    }


def test_the_document_is_made_once(client: httpx.Client, server: Server) -> None:
    asked = [client.get("/docs.json") for _ in range(3)]
    assert len({answer.content for answer in asked}) == 1
    before = server.cpu_seconds()
    for _ in range(20):
        client.get("/docs.json")
    assert server.cpu_seconds() - before < 1  # made anew each time it takes several


def conforms(document: JSON, path: str, method: str, response: httpx.Response) -> None:
    """Compare an answer with what the document promises for its status."""
    promised = document["paths"][path][method]["responses"][str(response.status_code)]
    schema = promised["content"][response.headers["content-type"]]["schema"]
    jsonschema.validate(response.json(), {**schema, "components": document["components"]})


def test_answers_are_as_documented(client: httpx.Client, document: JSON, picture: Callable[..., bytes]) -> None:
    mixed = [("images", ("a.jpg", picture())), ("images", ("b.jpg", b"text"))]
    conforms(document, "/classify", "post", client.post("/classify?model=colours", files=mixed))
    conforms(document, "/classify", "post", client.post("/classify?model=colours", files=[mixed[1], mixed[1]]))
    conforms(document, "/classify", "post", client.post("/classify?model=roses", files=mixed))
    conforms(
        document, "/classify", "post", client.post("/classify", content=b"x", headers={"content-type": "text/css"})
    )
    image = base64.b64encode(picture()).decode()
    conforms(document, "/classify", "post", client.post("/classify", json={"images": [image], "model": "tones"}))
    conforms(document, "/models", "get", client.get("/models"))
    conforms(document, "/models/{name}", "get", client.get("/models/tones"))
    conforms(document, "/models/{name}", "get", client.get("/models/roses"))
    conforms(document, "/readyz", "get", client.get("/readyz"))
