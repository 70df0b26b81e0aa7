"""LitServe as its documentation shows image uploads: decode, predict, encode; on a CPU a worker for each core.

lightning.ai/docs/litserve/api-reference/litserver. As many API servers as workers is its default, and with one it is
half as fast; `fast_queue` (ZeroMQ) changed nothing here.
"""

import os

import litserve
from fastapi import Request, UploadFile
from plain import WORKERS, answers, crop_of_bytes, session


class Classify(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        self.model = session()

    def decode_request(self, request: Request):
        upload: UploadFile = request["image"]
        return crop_of_bytes(upload.file.read())

    def predict(self, crop):
        return self.model.run(["logits"], {"images": crop[None]})[0]

    def encode_response(self, logits) -> dict[str, object]:
        return answers(logits)[0]


if __name__ == "__main__":
    server = litserve.LitServer(Classify(api_path="/classify"), accelerator="cpu", workers_per_device=WORKERS)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
