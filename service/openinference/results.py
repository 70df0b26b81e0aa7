"""Logits as the output tensors that a request asked for."""

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from inference.classifier import Classifier
from inference.errors import ParameterInvalid, PetalpawError
from inference.prediction import Logits, probabilities
from service.openinference.messages import InferRequest, InferResponse, RequestOutput, ResponseOutput
from service.openinference.signature import ABSTAINED, ERROR, LOGITS, PROBABILITIES, TensorSignature
from service.openinference.tensors import LENGTH
from service.streams import LogitsRow

Tensor = NDArray[Any]
"""float32, bool, or object (bytes)."""

_LITTLE_ENDIAN_FP32 = np.dtype("<f4")


def wanted_outputs(request: InferRequest, signatures: Sequence[TensorSignature]) -> tuple[RequestOutput, ...]:
    """The outputs of a request that can be had; all but the errors where it names none. Raises ParameterInvalid."""
    names = [each.name for each in signatures]
    if not request.outputs:
        return tuple(RequestOutput(name=name) for name in names if name != ERROR)
    asked = [output.name for output in request.outputs]
    if len(set(asked)) < len(asked) or not set(asked) <= set(names):
        unlike = ", ".join(repr(name[:64]) for name in asked)
        raise ParameterInvalid(f"the outputs are {', '.join(names)}, each at most once; asked for were {unlike}")
    for output in request.outputs:
        if output.parameters.shared_memory_region is not None:
            raise ParameterInvalid("shared memory is not supported; take the tensor from the answer")
        if output.parameters.classification and output.name not in (LOGITS, PROBABILITIES):
            raise ParameterInvalid(f"'classification' is for {LOGITS} and {PROBABILITIES}, not for {output.name}")
    return request.outputs


def complete(
    rows: Sequence[LogitsRow | PetalpawError], input_name: str, wanted: Sequence[RequestOutput]
) -> Sequence[LogitsRow | PetalpawError]:
    """The rows, if each has an answer or the client asked for the errors by name.

    Otherwise raises the first error, which then names its element: a tensor has no other place for it.
    """
    failed = [(index, row) for index, row in enumerate(rows) if isinstance(row, PetalpawError)]
    if not failed or any(output.name == ERROR for output in wanted):
        return rows
    index, error = failed[0]
    where = f"{input_name}[{index}]"
    if len(rows) > 1:
        where += f", the first of {len(failed)} that failed (ask for the output {ERROR!r} to have the others answered)"
    # A copy, because several elements may share one error.
    refusal = copy(error)
    refusal.detail = f"{where}: {error.detail}"
    raise refusal


class Results:
    """The outputs of one request.

    A picture without an answer has NaN (null in JSON) for numbers, empty strings for classes, and counts as abstained.
    """

    def __init__(self, classifier: Classifier, rows: Sequence[LogitsRow | PetalpawError]) -> None:
        calibration = classifier.artifact.manifest.calibration
        self._labels = classifier.labels
        self._rows = rows
        nothing = np.full(len(self._labels), np.nan, np.float32)
        self._logits: Logits = np.stack([nothing if isinstance(row, PetalpawError) else row for row in rows])
        self._probabilities = probabilities(self._logits, calibration.temperature).astype(np.float32)
        self._threshold = calibration.threshold

    def tensor(self, output: RequestOutput) -> tuple[str, Tensor]:
        """The protocol's data type of an output, and its values with the batch axis first."""
        classes = output.parameters.classification
        if output.name == ERROR:
            return "BYTES", self._errors()
        if output.name == ABSTAINED:
            # Written so that NaN counts as abstained.
            return "BOOL", ~(self._probabilities.max(axis=1, keepdims=True) >= self._threshold)
        values = self._logits if output.name == LOGITS else self._probabilities
        return ("BYTES", self._classes(values, classes)) if classes else ("FP32", values)

    def _errors(self) -> Tensor:
        texts = [f"{row.code}: {row.detail}".encode() if isinstance(row, PetalpawError) else b"" for row in self._rows]
        return np.array(texts, object)[:, None]

    def _classes(self, values: Tensor, count: int) -> Tensor:
        """Triton's form, `value:index:label`, best first."""
        order = np.argsort(-values, axis=1, kind="stable")[:, :count]
        return np.array(
            [[self._class(row[index], index) for index in indices] for row, indices in zip(values, order, strict=True)],
            object,
        )

    def _class(self, value: np.float32, index: int) -> bytes:
        return b"" if np.isnan(value) else f"{value:f}:{index}:{self._labels[index]}".encode()


def write_answer(
    request: InferRequest, wanted: Sequence[RequestOutput], classifier: Classifier, results: Results
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON object where binary tensors follow it."""
    outputs, binary = [], []
    for output in wanted:
        datatype, values = results.tensor(output)
        said = ResponseOutput(name=output.name, shape=values.shape, datatype=datatype)
        own = output.parameters.binary_data
        if request.parameters.binary_data_output if own is None else own:
            binary.append(_bytes(values))
            said.parameters = {"binary_data_size": len(binary[-1])}
        else:
            said.data = [each.decode() if isinstance(each, bytes) else each for each in values.ravel().tolist()]
        outputs.append(said)
    runtime = classifier.runtime
    response = InferResponse(
        model_name=classifier.artifact.name,
        model_version=classifier.artifact.version,
        id=request.id,
        parameters={
            "digest": classifier.artifact.digest,
            "runtime": runtime.name,
            "device": runtime.device,
            "execution_provider": runtime.execution_provider,
        },
        outputs=outputs,
    )
    head = to_json(response, inf_nan_mode="null")
    return b"".join([head, *binary]), len(head) if binary else None


def _bytes(values: Tensor) -> bytes:
    """Row by row, little-endian; BYTES behind their lengths."""
    if values.dtype == object:
        return b"".join(LENGTH.pack(len(each)) + each for each in values.ravel())
    return values.astype(_LITTLE_ENDIAN_FP32).tobytes() if values.dtype == np.float32 else values.tobytes()
