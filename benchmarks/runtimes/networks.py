"""The networks as files that the entrants read, and the crops and pictures that they are asked.

<folder>/photos.npy pictures/                    crops of photos as they are; encoded pictures for the pipeline
<folder>/<network>/fp32/model.onnx model.torchscript.pt
<folder>/<network>/int8/model.onnx               as petalpaw export --precision int8 makes it
<folder>/<network>/compiled/<threads>.pt2        AOTInductor's, for so many threads
<folder>/<network>/state.pt expected.npy         weights, and what eager PyTorch answers to the crops
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torchvision import models

from inference.errors import ImageError
from inference.prediction import Logits
from inference.preprocessing import Crop, Preprocessing
from training.backbones import Normalized
from training.export import eager_logits, export_onnx, export_torchscript
from training.quantize import quantize
from training.sections import Normalization

NETWORKS = ("mobilenet_v2", "resnet50", "vit_b_16")
THREADS = (1, 2)
CALIBRATED_ON = 64
"""Photos."""

_CONVOLUTION = (("x", [1, 3, 8, 8]), ("w", [4, 3, 3, 3]), ("y", [1, 4, 6, 6]))


def prepare(folder: Path, name: str, weights: Path | None, calibration: Crop) -> None:
    """Write all files of one network. Without weights they are random, always the same."""
    home = folder / name
    for part in ("fp32", "int8", "compiled"):
        (home / part).mkdir(parents=True, exist_ok=True)
    module = _initialised(name, weights)
    torch.save(module.state_dict(), home / "state.pt")
    crops = np.load(folder / "photos.npy")
    np.save(home / "expected.npy", _answers(module, crops if weights else crops[:32]))
    export_onnx(module, crops[:2], home / "fp32" / "model.onnx")
    export_torchscript(module, crops[:2], home / "fp32" / "model.torchscript.pt")
    # Random weights have no labels to keep: their int8 file is there for its speed.
    quantize(home / "fp32" / "model.onnx", home / "int8" / "model.onnx", calibration if weights else calibration[:4])
    for threads in THREADS:
        _compile(load(folder, name), crops[:2], home / "compiled" / f"{threads}.pt2", threads)


def load(folder: Path, name: str) -> Normalized:
    """The module in eval mode and channels-last, which PyTorch's convolutions on CPUs prefer."""
    module = Normalized(models.get_model(name), Normalization())
    module.load_state_dict(torch.load(folder / name / "state.pt", weights_only=True))
    return module.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def crops_of(photos: Iterable[Path], count: int) -> Crop:
    """uint8 (count, 224, 224, 3) of the first photos that can be read."""
    return np.stack([crop for crop, _ in zip(_readable(photos), range(count), strict=False)])


def refusal_of_bf16() -> str:
    """What ONNX Runtime says on the CPU to one convolution in bf16; empty where it takes it."""
    x, w, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.BFLOAT16, shape) for name, shape in _CONVOLUTION
    )
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "bf16", [x, w], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)], ir_version=10)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 – ONNX Runtime's exceptions share no public base class
        return str(error)
    return ""


def _initialised(name: str, weights: Path | None) -> Normalized:
    torch.manual_seed(0)
    network = models.get_model(name)
    if weights:
        network.load_state_dict(torch.load(weights, weights_only=True))
    elif name.startswith("vit_"):
        nn.init.normal_(network.heads.head.weight, std=0.02)  # zero at first: every logit would be
    return Normalized(network, Normalization()).eval().requires_grad_(False)


def _answers(module: Normalized, crops: Crop) -> Logits:
    return np.concatenate([eager_logits(module, crops[start : start + 16]) for start in range(0, len(crops), 16)])


def _compile(module: Normalized, examples: Crop, path: Path, threads: int) -> None:
    """torch.compile's code generator ahead of time: the number of threads becomes part of the code."""
    torch.set_num_threads(threads)
    batch = torch.export.Dim("batch", min=1, max=256)
    program = torch.export.export(module, (torch.from_numpy(examples),), dynamic_shapes=({0: batch},))
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def _readable(photos: Iterable[Path]) -> Iterator[Crop]:
    preprocessing = Preprocessing()
    for photo in photos:
        try:
            yield preprocessing(photo.read_bytes())
        except ImageError:
            continue
