"""What is measured besides where a GPU is. Written after the documentation of ONNX Runtime: no GPU has run it yet."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from entrants import Loader, Run, Shape, published

from inference.errors import DeviceUnavailable
from inference.prediction import Logits
from inference.preprocessing import Crop, Preprocessing
from inference.runtimes.onnx import CPU, CUDA, Provider

TENSORRT = "TensorrtExecutionProvider"
NVJPEG = "cuda, nvJPEG"


class Bound:
    """A session whose input and output stay on the GPU, a pair for each batch size; crops are copied in, logits out.

    With CUDA graphs the first run of a size is recorded and later ones are replayed on the same addresses.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._pairs: dict[int, tuple[Any, Any, Any]] = {}

    def __call__(self, crops: Crop) -> Logits:
        images, logits, binding = self._pairs.get(len(crops)) or self._paired(crops)
        images.update_inplace(np.ascontiguousarray(crops))
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(len(crops)))
        self._session.run_with_iobinding(binding, options)
        found: Logits = logits.numpy()
        return found

    def _paired(self, crops: Crop) -> tuple[Any, Any, Any]:
        classes = self._session.get_outputs()[0].shape[1]
        images = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(crops), "cuda", 0)
        logits = onnxruntime.OrtValue.ortvalue_from_shape_and_type((len(crops), classes), np.float32, "cuda", 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("images", images)
        binding.bind_ortvalue_output("logits", logits)
        self._pairs[len(crops)] = images, logits, binding
        return self._pairs[len(crops)]


def _bound(provider: Provider, precision: str, folder: Path, network: str, _: Shape) -> Run:
    onnxruntime.preload_dlls()
    model = folder / network / precision / "model.onnx"
    session = onnxruntime.InferenceSession(model, providers=[provider, CUDA, CPU])
    # ONNX Runtime only warns when a provider fails to load, then runs on the next.
    if session.get_providers()[0] != provider[0]:
        raise DeviceUnavailable(f"ONNX Runtime could not load {provider[0]}")
    return Bound(session)


GRAPHS: Provider = (CUDA[0], {**CUDA[1], "enable_cuda_graph": "1"})
FP16: Provider = (TENSORRT, {"trt_fp16_enable": "1"})
INT8: Provider = (TENSORRT, {"trt_int8_enable": "1", "trt_fp16_enable": "1"})

ENTRANTS: dict[str, Loader] = {
    "cuda fp32": published("onnx", "fp32", "cuda"),
    "cuda, I/O binding": partial(_bound, CUDA, "fp32"),
    "cuda, graphs": partial(_bound, GRAPHS, "fp32"),
    "tensorrt fp16": partial(_bound, FP16, "fp32"),
    "tensorrt int8": partial(_bound, INT8, "int8"),
    NVJPEG: partial(_bound, CUDA, "fp32"),
}


def decoded(pictures: Sequence[bytes]) -> Crop:
    """nvJPEG's crops, uint8 (batch, 224, 224, 3): its pixels and its resizing are not Pillow's."""
    import torch
    from torchvision.io import decode_jpeg
    from torchvision.transforms.v2 import functional

    sizes = Preprocessing()
    encoded = [torch.frombuffer(bytearray(picture), dtype=torch.uint8) for picture in pictures]
    resized = (
        functional.resize(image, [sizes.resize], antialias=True) for image in decode_jpeg(encoded, device="cuda")
    )
    crops = torch.stack([functional.center_crop(image, [sizes.crop]) for image in resized])
    found: Crop = crops.permute(0, 2, 3, 1).cpu().numpy()
    return found
