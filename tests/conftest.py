"""Pictures and models that the tests make themselves."""

import io
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from inference.golden import golden_crops
from inference.manifest import (
    INT8,
    MANIFEST,
    PARITY,
    Calibration,
    Golden,
    Manifest,
    ParityFigure,
    ParityReport,
    Provenance,
    Quantized,
    QuantizedFigure,
    Signature,
    digest_of,
    file_entry,
)
from inference.preprocessing import Preprocessing
from inference.repository import Artifact, Repository
from tests.cluster import Cluster, running

Colour = tuple[int, int, int]
RED, GREEN, BLUE = (220, 30, 30), (30, 200, 40), (30, 40, 210)
SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Tests that send SIGINT need it heard; a runner started in the background inherits it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """A maker of encoded pictures of one colour with a little noise."""

    def make(colour: Colour = RED, size: tuple[int, int] = (320, 240), kind: str = "JPEG", seed: int = 0) -> bytes:
        noise = np.random.RandomState(seed).randint(-20, 21, (size[1], size[0], 3))
        pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, kind)
        return encoded.getvalue()

    return make


def _save_model(path: Path) -> None:
    """uint8 (batch, 32, 32, 3) → float32 (batch, 3): the mean of each colour plane, divided by 32."""
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
            helper.make_node("Div", ["means", "scale"], ["logits"]),
        ],
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 32, 32, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("scale", TensorProto.FLOAT, [], [32.0]),
        ],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def colour_artifact(folder: Path, name: str = "colours", labels: tuple[str, ...] = ("red", "green", "blue")) -> Path:
    """An exported artifact in `folder` whose logits are the mean of each colour plane, divided by 32.

    A real ONNX model of the real signature, made in milliseconds; its parity report says that it passed.
    """
    preprocessing = Preprocessing(resize=36, crop=32)
    folder.mkdir(parents=True, exist_ok=True)
    _save_model(folder / "model.onnx")
    (folder / "README.md").write_text(f"# {name}\n", encoding="utf-8")
    crops = golden_crops(32)
    logits = crops.astype(np.float32).mean(axis=(1, 2)) / 32
    digest = digest_of(b"nothing")
    manifest = Manifest(
        name=name,
        title="Which colour plane is brightest",
        labels=labels,
        signature=Signature.of(32, 3),
        preprocessing=preprocessing,
        preprocessing_golden=preprocessing.golden_digest(),
        files={file: file_entry(folder / file) for file in ("README.md", "model.onnx")},
        golden=Golden(crops_sha256=digest_of(crops.tobytes()), logits=logits.tolist(), tolerance=1e-3),
        calibration=Calibration(threshold=0.5),
        provenance=Provenance(
            recipe="none",
            recipe_sha256=digest,
            backbone="none",
            weights="none",
            weights_sha256=None,
            data_fingerprint=digest,
            packages={},
            commit=None,
            created="2026-01-01T00:00:00Z",
        ),
    )
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    report = ParityReport(
        passed=True,
        files={"model.onnx": manifest.files["model.onnx"].sha256},
        figures=(
            ParityFigure(
                runtime="onnx",
                device="cpu",
                max_difference=0,
                mean_difference=0,
                top1_agreement=1,
                images=8,
                tolerance=1e-3,
            ),
        ),
        batches=(1,),
        photos=0,
        golden=8,
        created="2026-01-01T00:00:00Z",
    )
    (folder / PARITY).write_text(report.model_dump_json(), encoding="utf-8")
    return folder


INT8_SCALE = 36.0
"""What the means are divided by in the int8 file of the tests; in model.onnx it is 32."""

INT8_FIGURE = QuantizedFigure(
    runtime="onnx-int8",
    images=500,
    agreement=0.998,
    agreement_low=0.989,
    agreement_high=0.9996,
    accuracy=0.99,
    accuracy_fp32=0.99,
    max_difference=0.3,
    mean_difference=0.05,
)


def with_int8(folder: Path) -> Path:
    """Give an artifact of `colour_artifact` a second file, whose logits are a little smaller; the folder comes back."""
    model = onnx.load(folder / "model.onnx")
    (scale,) = (tensor for tensor in model.graph.initializer if tensor.name == "scale")
    scale.CopyFrom(onnx.numpy_helper.from_array(np.float32(INT8_SCALE), "scale"))
    onnx.save(model, folder / INT8)
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    logits = golden_crops(32).astype(np.float32).mean(axis=(1, 2)) / INT8_SCALE
    quantized = Quantized(
        calibration="minmax",
        images=128,
        excluded=("features.0",),
        golden=manifest.golden.model_copy(update={"logits": tuple(tuple(map(float, row)) for row in logits)}),
        figures=(INT8_FIGURE,),
    )
    entry = file_entry(folder / INT8)
    changed = manifest.model_copy(update={"files": manifest.files | {INT8: entry}, "quantized": quantized})
    (folder / MANIFEST).write_text(changed.to_json(), encoding="utf-8")
    report = ParityReport.model_validate_json((folder / PARITY).read_bytes())
    covering = report.model_copy(update={"files": report.files | {INT8: entry.sha256}})
    (folder / PARITY).write_text(covering.model_dump_json(), encoding="utf-8")
    return folder


@pytest.fixture
def quantized(exported: Path) -> Path:
    """The folder of an exported artifact with an int8 file."""
    return with_int8(exported)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The folder of an exported, not yet published artifact."""
    return colour_artifact(tmp_path / "exported")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A model repository with `colours` and `tones`, both version 1. Read-only: tests that write make their own."""
    root = tmp_path_factory.mktemp("models")
    made = Repository(root)
    made.publish(colour_artifact(tmp_path_factory.mktemp("colours")))
    made.publish(colour_artifact(tmp_path_factory.mktemp("tones"), "tones", ("warm", "leafy", "cold")))
    return made


@pytest.fixture(scope="session")
def artifact(repository: Repository) -> Artifact:
    """The artifact colours/1."""
    return repository.open("colours")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Ray cluster of two nodes; the tests of the engine end with one."""
    pytest.importorskip("ray")
    with running() as found:
        yield found
