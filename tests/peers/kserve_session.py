"""A session of KServe's client; prints what it saw as JSON. Arguments: address, model, crops (.npy), pictures."""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferOutput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def encoded(pictures: list[bytes], *, binary: bool) -> InferInput:
    tensor = InferInput("encoded", [len(pictures), 1], "BYTES")
    elements = pictures if binary else [base64.b64encode(picture) for picture in pictures]
    tensor.set_data_from_numpy(np.array(elements, object).reshape(-1, 1), binary_data=binary)
    return tensor


def crops(values: np.ndarray, *, binary: bool) -> InferInput:
    tensor = InferInput("images", list(values.shape), "UINT8")
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


async def session(address: str, model: str, values: np.ndarray, pictures: list[bytes]) -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=60)) as client:

        async def infer(tensor: InferInput, *wanted: RequestedOutput, **parameters: Any) -> dict[str, InferOutput]:
            request = InferRequest(model, [tensor], parameters=parameters, request_outputs=list(wanted))
            response = await client.infer(address, request, model_name=model)
            assert response.model_name == model
            return {output.name: output for output in response.outputs}

        found: dict[str, Any] = {
            "live": await client.is_server_live(address),
            "ready": await client.is_server_ready(address),
            "model_ready": await client.is_model_ready(address, model),
            "other_ready": await client.is_model_ready(address, "roses"),
        }
        forms = {
            "pictures in JSON": encoded(pictures, binary=False),
            "pictures in binary form": encoded(pictures, binary=True),
            "crops in JSON": crops(values, binary=False),
            "crops in binary form": crops(values, binary=True),
        }
        for form, tensor in forms.items():
            for binary in (False, True):
                outputs = await infer(tensor, binary_data_output=binary)
                found[f"{form}, binary answer {binary}"] = outputs["logits"].as_numpy().argmax(axis=1).tolist()
        mixed = encoded([pictures[0], b"text"], binary=True)
        outputs = await infer(mixed, RequestedOutput("logits"), RequestedOutput("error"))
        found["errors"] = np.array(outputs["error"].data).ravel().tolist()
        try:
            await infer(mixed)
        except httpx.HTTPStatusError as error:
            found["refused"] = str(error)
        return found


if __name__ == "__main__":
    address, model, values, *files = sys.argv[1:]
    pictures = [Path(file).read_bytes() for file in files]
    print(json.dumps(asyncio.run(session(address, model, np.load(values), pictures))))
