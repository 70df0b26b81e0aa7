"""model.onnx to 8-bit integers: ranges from training photos, then biases that take back what rounding has moved.

ONNX Runtime's quantizer writes the graph: QDQ, symmetric int8 weights per output channel, uint8 activations per tensor.
What it leaves is mostly a shift of every layer's mean, which grows from layer to layer; so each bias is corrected in
the order of the graph until the layer's mean is again that of float32 (Nagel et al. 2019, on photos instead of
batch norm's statistics).
"""

import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from inference.budget import whole_cores
from inference.errors import ParameterInvalid
from inference.manifest import CalibrationName
from inference.preprocessing import Crop

CALIBRATIONS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}

FIRST = 2
"""So many convolutions at the input stay in float32: few products on many pixels, and OpenVINO 2026.4 gave wrong
answers where the first one's output was quantised (docs/runtimes.md)."""

_LINEAR = ("Conv", "Gemm")
_QUANTIZED = (*_LINEAR, "MatMul", "Add", "Clip", "Relu", "MaxPool", "Concat")
_PREFIX, _SUFFIX = "network.", ".weight"  # of training.backbones.Normalized
_CORRECTED = 128  # crops at most whose means a bias is corrected by: each is run once for every layer
_BATCH = 16


def quantize(
    source: Path, target: Path, crops: Crop, *, calibration: CalibrationName = "minmax", exclude: Sequence[str] = ()
) -> tuple[str, ...]:
    """Write the int8 file and return the layers that stay in float32: the first two convolutions and `exclude`.

    `crops`, uint8 (count, height, width, 3), are of training photos. A layer is named as in recipes, `features.17`,
    and stands for all that lies in it. Raises ParameterInvalid for one that is not there.
    """
    with _temporary(target.parent) as folder, _quiet():
        prepared = folder / "prepared.onnx"
        quant_pre_process(source, prepared)
        exact = onnx.load(prepared)
        excluded = _excluded(exact.graph, exclude)
        quantize_static(
            prepared,
            target,
            _Crops(crops),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTIZED),
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            nodes_to_exclude=[node.name for node in excluded],
            calibrate_method=CALIBRATIONS[calibration],
        )
    model = onnx.load(target)
    _correct_biases(exact, model, crops[:: max(1, len(crops) // _CORRECTED)][:_CORRECTED])
    onnx.save(model, target)
    return tuple(_layer(node) or node.name for node in excluded)


class _Crops(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime publishes no types
    """One crop at a time, as `CalibrationDataReader` hands them out."""

    def __init__(self, crops: Crop) -> None:
        self._crops = iter(crops)

    def get_next(self) -> dict[str, Crop] | None:
        """The next input, None at the end."""
        crop = next(self._crops, None)
        return None if crop is None else {"images": crop[None]}


def _excluded(graph: onnx.GraphProto, layers: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that stay in float32."""
    convolutions = [node for node in graph.node if node.op_type == "Conv"][:FIRST]
    named = {layer: [node for node in graph.node if _lies_in(_layer(node), layer)] for layer in layers}
    if unknown := [layer for layer, nodes in named.items() if not nodes]:
        known = ", ".join(dict.fromkeys(layer for node in graph.node if (layer := _layer(node))))
        raise ParameterInvalid(f"no layer is called {', '.join(unknown)}; the model has {known}")
    every = [*convolutions, *(node for nodes in named.values() for node in nodes)]
    return list({node.name: node for node in every}.values())


def _layer(node: onnx.NodeProto) -> str:
    """The layer that a node's weight belongs to, as PyTorch calls it; empty for a node without one."""
    weights = [name for name in node.input if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]
    return weights[0].removeprefix(_PREFIX).removesuffix(_SUFFIX) if weights else ""


def _lies_in(layer: str, outer: str) -> bool:
    return f"{layer}.".startswith(f"{outer}.")


def _correct_biases(exact: onnx.ModelProto, model: onnx.ModelProto, crops: Crop) -> None:
    """Move the biases of `model`, in place and in its order, until each layer's mean per channel is that of `exact`."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    layers = {node.name: node.output[0] for node in exact.graph.node if node.op_type in _LINEAR}
    wanted = _means(exact, layers, crops)
    for node in model.graph.node:
        if node.op_type not in _LINEAR or node.name not in layers or len(node.input) < 3:
            continue
        lacking = wanted[node.name] - _means(model, {node.name: node.output[0]}, crops)[node.name]
        bias, scale = node.input[2], np.array(1, dtype=np.float32)
        if bias in makers:  # DequantizeLinear: whole numbers of a scale per channel
            bias, scale = makers[bias].input[0], numpy_helper.to_array(tensors[makers[bias].input[1]])
        before = numpy_helper.to_array(tensors[bias])
        moved = before + lacking / scale
        if before.dtype.kind == "i":
            limits = np.iinfo(before.dtype)
            moved = np.clip(np.round(moved), limits.min, limits.max)
        tensors[bias].CopyFrom(numpy_helper.from_array(moved.astype(before.dtype), bias))


def _means(model: onnx.ModelProto, outputs: dict[str, str], crops: Crop) -> dict[str, NDArray[np.float64]]:
    """Of each named output, the mean per channel over crops and pixels, by the name of its node."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]  # what no output needs is not computed
    kinds = {node.name: node.op_type for node in model.graph.node}
    for name, output in outputs.items():
        axes = numpy_helper.from_array(np.array([0, 2, 3] if kinds[name] == "Conv" else [0]), f"{output}/axes")
        part.graph.initializer.append(axes)
        part.graph.node.append(onnx.helper.make_node("ReduceMean", [output, axes.name], [f"{output}/mean"], keepdims=0))
        part.graph.output.append(onnx.helper.make_tensor_value_info(f"{output}/mean", onnx.TensorProto.FLOAT, None))
    options = SessionOptions()
    options.intra_op_num_threads = whole_cores()
    options.log_severity_level = 3
    session = InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
    parts = [crops[start : start + _BATCH] for start in range(0, len(crops), _BATCH)]
    means = [session.run(None, {"images": part}) for part in parts]
    weights = [len(part) for part in parts]
    columns = (np.average(column, axis=0, weights=weights) for column in zip(*means, strict=True))
    return dict(zip(outputs, columns, strict=True))


@contextmanager
def _temporary(parent: Path) -> Iterator[Path]:
    """A folder for the block, in which the quantizer's own lie too: it makes them where `tempfile` says."""
    usual = tempfile.tempdir
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = usual


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer advises, on the root logger, to do what has been done, and prints on stdout, which is for data."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(logging.NOTSET)
