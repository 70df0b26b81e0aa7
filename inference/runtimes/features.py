"""ONNX Runtime that also gives the features: what a model's last linear layer sees.

The artifact stays as it was published. Its graph gets one more output in memory, so any model whose logits come from a
linear layer has features; the logits stay the same bits (tests/inference/test_features.py).
"""

from pathlib import Path

import onnx

from inference.errors import ParameterInvalid
from inference.features import Features
from inference.prediction import Logits
from inference.preprocessing import Crop
from inference.runtimes.onnx import OnnxRuntime

_LOGITS = "logits"


class FeatureRuntime(OnnxRuntime):
    """An ONNX Runtime session over model.onnx with a second output."""

    def run_with_features(self, crops: Crop) -> tuple[Logits, Features]:
        """uint8 (batch, height, width, 3) → float32 (batch, classes) and float32 (batch, length)."""
        logits, features = self._session.run([_LOGITS, self._features], {"images": crops})
        return logits, features

    def _model(self, folder: Path) -> bytes:
        """The serialised model with the second output. Raises ParameterInvalid where there can be none."""
        path = folder / self.file
        model = onnx.load(path, load_external_data=False)
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
            raise ParameterInvalid(
                f"{path} keeps its weights in a second file, so features cannot be had; leave them out"
            )
        self._features = _before_last_layer(model.graph, path)
        model.graph.output.append(onnx.helper.make_tensor_value_info(self._features, onnx.TensorProto.FLOAT, None))
        serialised: bytes = model.SerializeToString()
        return serialised


def _before_last_layer(graph: onnx.GraphProto, path: Path) -> str:
    """The name of the tensor that the linear layer before the logits takes. Raises ParameterInvalid."""
    makers = {output: node for node in graph.node for output in node.output}
    node = makers.get(_LOGITS)
    if node is not None and node.op_type == "Add":  # a bias that was not folded into the product
        node = next((makers[name] for name in node.input if name in makers), None)
    if node is None or node.op_type not in ("Gemm", "MatMul"):
        made = "nothing" if node is None else node.op_type
        raise ParameterInvalid(
            f"the logits of {path} come from {made}, not from a linear layer, so there are no features; leave them out "
            "or use a model whose last layer is linear"
        )
    return str(node.input[0])
