"""POST /v2/models/{name}/infer: crops or encoded pictures in, tensors out."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from inference.classifier import Classifier
from service.body import read_body
from service.call import Call
from service.openinference import signature
from service.openinference.messages import InferResponse, RequestOutput
from service.openinference.paths import of_model, refusals, used_model
from service.openinference.results import Results, complete, wanted_outputs, write_answer
from service.openinference.tensors import read_input
from service.openinference.wire import HEADER_LENGTH, Message, compressed, decompressed, read_message
from service.settings import Settings
from service.streams import Input

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
    with used_model(request) as classifier:
        message, wanted, inputs = await _read(request, body, classifier, state.settings)
        if message.request.parameters.timeout:
            call.deadline = min(call.deadline, monotonic() + message.request.parameters.timeout / 1e6)
        rows = await state.streams.logits(call, classifier, inputs)
        rows = complete(rows, message.request.inputs[0].name, wanted)
        answer, json_length = write_answer(message.request, wanted, classifier, Results(classifier, rows))
    answer, headers = compressed(answer, request.headers.get("Accept-Encoding", ""))
    if json_length is None:
        return Response(answer, headers=headers, media_type="application/json")
    headers[HEADER_LENGTH] = str(json_length)
    return Response(answer, headers=headers, media_type="application/octet-stream")


async def _read(
    request: Request, body: bytearray, classifier: Classifier, settings: Settings
) -> tuple[Message, Sequence[RequestOutput], Sequence[Input]]:
    """The request, the outputs that it wants, and its pictures or crops."""
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    header_length = request.headers.get(HEADER_LENGTH)

    def read() -> tuple[Message, Sequence[RequestOutput], Sequence[Input]]:
        message = read_message(decompressed(body, encoding, settings.max_body_bytes), header_length)
        wanted = wanted_outputs(message.request, signature.outputs(classifier))
        return message, wanted, read_input(message, signature.inputs(classifier), settings.max_images)

    return await asyncio.get_running_loop().run_in_executor(_reader, read)
