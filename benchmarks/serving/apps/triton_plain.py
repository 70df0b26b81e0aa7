"""Triton through nvidia-pytriton: a Python backend that decodes pictures, with PyTriton's dynamic batching.

triton-inference-server.github.io/pytriton: "Deploying Models" (several instances as a list of callables, here one per
core), "Binding Configuration" (the batcher; batches of at most 1, 2 or 4 were slower here than 16).
"""

import os

import numpy as np
from plain import WORKERS, classify, session
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

models = [session() for _ in range(WORKERS)]


def instance(model):
    @batch
    def infer(encoded: np.ndarray) -> dict[str, np.ndarray]:
        labels = [str(classify(model, picture[0])["label"]).encode() for picture in encoded]
        return {"label": np.array(labels, dtype=bytes)[:, None]}

    return infer


if __name__ == "__main__":
    port = int(os.environ["PORT"])
    config = TritonConfig(http_address="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_port=port + 2)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="plain",
            infer_func=[instance(model) for model in models],
            inputs=[Tensor(name="encoded", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="label", dtype=bytes, shape=(1,))],
            config=ModelConfig(max_batch_size=16, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()
