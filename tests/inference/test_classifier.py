"""One path from bytes to answers, proven at every load."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from inference.classifier import Classifier
from inference.errors import ImageEmpty, ImageTruncated, ImageUnsupported, ParameterInvalid, SelfTestFailed
from inference.golden import GOLDEN_COUNT, golden_crops
from inference.manifest import digest_of
from inference.prediction import Prediction
from inference.repository import Artifact

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 40), (30, 40, 210)


@pytest.fixture(scope="module")
def classifier(artifact: Artifact) -> Classifier:
    return Classifier.load(artifact, device="cpu")


def test_classifies(classifier: Classifier, picture: Callable[..., bytes]) -> None:
    answers = classifier.classify([picture(RED), picture(GREEN), picture(BLUE)])
    assert [answer.label for answer in answers if isinstance(answer, Prediction)] == ["red", "green", "blue"]


def test_neighbours_of_a_bad_picture_are_unharmed(classifier: Classifier, picture: Callable[..., bytes]) -> None:
    good = picture(RED)
    found = classifier.classify([b"", good, b"hello", picture(GREEN), good[:500], good])
    assert [type(each) for each in found] == [
        ImageEmpty, Prediction, ImageUnsupported, Prediction, ImageTruncated, Prediction,
    ]  # fmt: skip
    assert found[1] == found[5] == classifier.classify([good])[0]


def test_no_pictures(classifier: Classifier) -> None:
    assert classifier.classify([]) == []


def test_options_are_passed_on(classifier: Classifier, picture: Callable[..., bytes]) -> None:
    (answer,) = classifier.classify([picture(RED)], top_k=2)
    assert isinstance(answer, Prediction)
    assert len(answer.top_k) == 2
    (refused,) = classifier.classify([picture(RED)], max_pixels=100)
    assert not isinstance(refused, Prediction)
    assert refused.code == "image_too_many_pixels"
    with pytest.raises(ParameterInvalid):
        classifier.classify([picture(RED)], top_k=0)


def test_threads_share_a_classifier(classifier: Classifier, picture: Callable[..., bytes]) -> None:
    pictures = [picture(colour, seed=seed) for seed in range(20) for colour in (RED, GREEN, BLUE)]
    expected = classifier.classify(pictures)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda data: classifier.classify([data])[0], pictures)) == expected


def test_golden_crops_are_fixed_by_their_size() -> None:
    crops = golden_crops(32)
    assert crops.shape == (GOLDEN_COUNT, 32, 32, 3)
    assert crops.dtype == np.uint8
    assert len({crop.tobytes() for crop in crops}) == GOLDEN_COUNT
    assert digest_of(golden_crops(224).tobytes()) == digest_of(golden_crops(224).tobytes())
    assert golden_crops(1).shape == (GOLDEN_COUNT, 1, 1, 3)


# --- the self-test ----------------------------------------------------------------------------------------------------


def load(folder: Path) -> Classifier:
    return Classifier.load(Artifact.open(folder), device="cpu")


def golden(*path: Any, add: float) -> Callable[[dict[str, Any]], None]:
    row, column = path

    def change(content: dict[str, Any]) -> None:
        content["golden"]["logits"][row][column] += add

    return change


def test_passes(exported: Path) -> None:
    load(exported)


@pytest.mark.parametrize("add", [0.01, -0.01, float("nan"), float("inf")])
@pytest.mark.parametrize("row", [0, 7])
def test_wrong_golden_logits(exported: Path, edit: Callable[..., Path], row: int, add: float) -> None:
    edit(exported, golden(row, 2, add=add))
    with pytest.raises(SelfTestFailed, match=r"colours/0 on onnx \(cpu\): logits of the golden inputs differ from Py"):
        load(exported)


def test_difference_within_the_tolerance(exported: Path, edit: Callable[..., Path]) -> None:
    edit(exported, golden(3, 1, add=0.0009))
    load(exported)


def test_wrong_preprocessing(exported: Path, edit: Callable[..., Path]) -> None:
    edit(exported, lambda content: content.update(preprocessing_golden=digest_of(b"")))
    with pytest.raises(SelfTestFailed, match=r"preprocessing gives other bytes .*install the Pillow version"):
        load(exported)
    edit(exported, lambda content: content["preprocessing"].update(interpolation="bicubic"))
    with pytest.raises(SelfTestFailed, match="preprocessing gives other bytes"):
        load(exported)


def test_wrong_golden_inputs(exported: Path, edit: Callable[..., Path]) -> None:
    edit(exported, lambda content: content["golden"].update(crops_sha256=digest_of(b"")))
    with pytest.raises(SelfTestFailed, match="golden inputs differ from those of the export; export the model again"):
        load(exported)


def model(
    *, inputs: str = "images", outputs: str = "logits", kind: int = TensorProto.UINT8, side: int = 32, axes: int = 2,
    scale: float = 32.0, batch: int | str = "batch",
) -> bytes:  # fmt: skip
    """model.onnx of `colour_artifact`, with something wrong."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [inputs], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
            helper.make_node("Div", ["means", "scale"], [outputs]),
        ],
        "colours",
        [helper.make_tensor_value_info(inputs, kind, [batch, side, side, 3])],
        [helper.make_tensor_value_info(outputs, TensorProto.FLOAT, None)],
        [
            helper.make_tensor("axes", TensorProto.INT64, [axes], list(range(1, 1 + axes))),
            helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
        ],
    )
    made: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return made.SerializeToString()


def test_model_of_these_tests_is_right(exported: Path, replace: Callable[..., Path]) -> None:
    load(replace(exported, "model.onnx", model()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": "pictures"},
        {"outputs": "scores"},
        {"kind": TensorProto.FLOAT},
        {"side": 31},
        {"axes": 3},
        {"batch": 8},
    ],
    ids=str,
)
def test_model_that_does_not_fit_its_signature(
    exported: Path, replace: Callable[..., Path], wrong: dict[str, Any]
) -> None:
    replace(exported, "model.onnx", model(**wrong))
    with pytest.raises(
        SelfTestFailed, match=r"(?s)cannot run the golden inputs at batch .*; export it again|differ from"
    ):
        load(exported)


def test_model_that_gives_nan(exported: Path, replace: Callable[..., Path]) -> None:
    replace(exported, "model.onnx", model(scale=float("nan")))
    with pytest.raises(SelfTestFailed, match="differ from PyTorch's by nan at batch 1"):
        load(exported)


def test_every_batch_size_is_tried(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def logits(crops: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        seen.append(len(crops))
        # Wrong only for a batch of 5, as a runtime with a bad kernel for one shape would be.
        return classifier.runtime.run(crops) + np.float32(len(crops) == 5)

    monkeypatch.setattr(classifier, "logits", logits)
    classifier.self_test((16,))
    assert set(seen) == {1, 8, 16}
    with pytest.raises(SelfTestFailed, match="at batch 5"):
        classifier.self_test((5,))
