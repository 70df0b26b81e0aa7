"""What goes into a model and what comes out of it, in the protocol's words.

An artifact `catdog` is the protocol's model `catdog`. A request holds one of two inputs, so its metadata lists both and
its configuration calls both optional.
"""

from dataclasses import dataclass
from typing import Literal

from inference.classifier import Classifier

IMAGES = "images"
ENCODED = "encoded"
LOGITS = "logits"
PROBABILITIES = "probabilities"
ABSTAINED = "abstained"
ERROR = "error"

DataType = Literal["UINT8", "FP32", "BOOL", "BYTES"]


@dataclass(frozen=True, slots=True)
class TensorSignature:
    """A tensor of the protocol; `row` is its shape without the batch axis, which every tensor has first."""

    name: str
    datatype: DataType
    row: tuple[int, ...]


def inputs(classifier: Classifier) -> tuple[TensorSignature, ...]:
    """Crops that are ready for the model, or encoded pictures that the server decodes."""
    side = classifier.artifact.manifest.preprocessing.crop
    return TensorSignature(IMAGES, "UINT8", (side, side, 3)), TensorSignature(ENCODED, "BYTES", (1,))


def outputs(classifier: Classifier) -> tuple[TensorSignature, ...]:
    """`probabilities` are calibrated; `abstained` says "not sure"; `error` is empty where there is an answer."""
    classes = (len(classifier.labels),)
    return (
        TensorSignature(LOGITS, "FP32", classes),
        TensorSignature(PROBABILITIES, "FP32", classes),
        TensorSignature(ABSTAINED, "BOOL", (1,)),
        TensorSignature(ERROR, "BYTES", (1,)),
    )
