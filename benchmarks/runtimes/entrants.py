"""Who is measured: how each loads a network for a number of streams and threads. Packages are imported when chosen."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inference.prediction import Logits
from inference.preprocessing import Crop
from inference.runtimes.base import Device, Load
from inference.runtimes.registry import cuda_device_count, load_runtime


class Shape(NamedTuple):
    """So many calls at a time, each with so many threads inside the runtime."""

    streams: int
    threads: int


SHAPES = (Shape(1, 1), Shape(1, 2), Shape(2, 1))

Run = Callable[[Crop], Logits]
"""uint8 (batch, height, width, 3) → float32 (batch, classes)."""

Loader = Callable[[Path, str, Shape], Run]
"""Folder, network and shape to what runs it."""


def published(runtime: str, precision: str, device: Device = "cpu") -> Loader:
    """One of Petalpaw's own runtimes over a file of one precision."""

    def load(folder: Path, network: str, shape: Shape) -> Run:
        sizes = Load(threads=shape.threads, streams=shape.streams)
        return load_runtime(runtime, folder / network / precision, device, sizes).run

    return load


def _eager(folder: Path, network: str, shape: Shape) -> Run:  # noqa: ARG001 – threads are set for the process
    from networks import load

    return _torch(load(folder, network))


def _compiled(folder: Path, network: str, shape: Shape) -> Run:
    import torch

    path = folder / network / "compiled" / f"{shape.threads}.pt2"
    return _torch(torch._inductor.aoti_load_package(str(path), num_runners=shape.streams))


def _torch(module: Any) -> Run:
    import torch

    def run(crops: Crop) -> Logits:
        with torch.inference_mode():
            logits: Logits = module(torch.from_numpy(np.ascontiguousarray(crops))).numpy()
        return logits

    return run


ENTRANTS: dict[str, Loader] = {
    "onnx fp32": published("onnx", "fp32"),
    "onnx int8": published("onnx", "int8"),
    "openvino fp32": published("openvino", "fp32"),
    "openvino bf16": published("openvino-bf16", "fp32"),
    "openvino int8": published("openvino", "int8"),
    "torchscript": published("torchscript", "fp32"),
    "torch eager": _eager,
    "torch compiled": _compiled,
}
REFERENCE = "onnx fp32"


def entrants() -> dict[str, Loader]:
    """All of them, with those for a GPU where one is."""
    if not cuda_device_count():
        return ENTRANTS
    import gpu

    return ENTRANTS | gpu.ENTRANTS


def use_threads(threads: int) -> None:
    """PyTorch keeps one number of threads for the whole process; the others keep theirs with the model."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
