"""POST /v2/models/{name}/infer: crops or encoded pictures in, tensors out."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from inference.classifier import Classifier
from inference.errors import PetalpawError
from service.body import read_body
from service.call import Call
from service.openinference import signature
from service.openinference.messages import InferRequest, InferResponse, RequestOutput
from service.openinference.paths import of_model, refusals, used_model
from service.openinference.results import Results, complete, wanted_outputs, write_answer
from service.openinference.tensors import read_input
from service.openinference.wire import HEADER_LENGTH, compressed, decompressed, read_message
from service.settings import Settings
from service.streams import Input, LogitsRow

_TENSORS = {"schema": {"type": "string", "format": "binary", "description": "the JSON object, then binary tensors"}}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "parameters": {"type": "object"},
                    "inputs": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["name", "shape", "datatype"],
                            "properties": {
                                "name": {"enum": [signature.IMAGES, signature.ENCODED]},
                                "shape": {"type": "array", "items": {"type": "integer"}},
                                "datatype": {"enum": ["UINT8", "BYTES"]},
                                "parameters": {"type": "object"},
                                "data": {"type": "array", "items": {}},
                            },
                        },
                    },
                    "outputs": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
                        },
                    },
                },
            }
        },
        "application/octet-stream": _TENSORS,
    },
}

# One thread: a JSON tensor takes many times its text while it is read, and two at once would not be read any faster.
_reader = ThreadPoolExecutor(1, "openinference")

router = APIRouter()


@of_model(
    router,
    "POST",
    "/infer",
    response_model=InferResponse,
    responses={
        200: {"content": {"application/octet-stream": _TENSORS}},
        **refusals(404, 413, 415, 422, 429, 504),
    },
    openapi_extra={"requestBody": _BODY},
)
async def infer(request: Request) -> Response:
    """Logits, probabilities and more for one picture or several."""
    call = Call.of(request)
    state = request.app.state
    # The queue may be full before the body is read, and its pictures known.
    state.streams.admission.admit(call)
    with call.stage("read"):
        body = await read_body(request, state.settings.max_body_bytes)
    headers = request.headers
    with used_model(request) as classifier:
        asked = await asyncio.get_running_loop().run_in_executor(
            _reader, _read, body, headers, classifier, state.settings
        )
        async with call.at_most(asked.request.parameters.timeout / 1e6 or None):
            rows = await state.streams.logits(call, classifier, asked.inputs)
        rows = complete(rows, asked.request.inputs[0].name, asked.outputs)
        return await run_in_threadpool(_answer, asked, classifier, rows, headers.get("Accept-Encoding", ""))


class _Asked(NamedTuple):
    """A request that can be answered."""

    request: InferRequest
    outputs: Sequence[RequestOutput]
    inputs: Sequence[Input]


def _read(body: bytearray, headers: Headers, classifier: Classifier, settings: Settings) -> _Asked:
    body = decompressed(body, headers.get("Content-Encoding", "").strip().lower(), settings.max_body_bytes)
    message = read_message(body, headers.get(HEADER_LENGTH))
    outputs = wanted_outputs(message.request, signature.outputs(classifier))
    inputs = read_input(message, signature.inputs(classifier), settings.max_images)
    return _Asked(message.request, outputs, inputs)


def _answer(
    asked: _Asked, classifier: Classifier, rows: Sequence[LogitsRow | PetalpawError], accepted: str
) -> Response:
    results = Results(classifier, rows)
    body, json_length = write_answer(asked.request, asked.outputs, classifier, results)
    body, headers = compressed(body, accepted)
    if json_length is None:
        return Response(body, headers=headers, media_type="application/json")
    headers[HEADER_LENGTH] = str(json_length)
    return Response(body, headers=headers, media_type="application/octet-stream")
