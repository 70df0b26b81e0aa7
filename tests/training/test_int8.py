"""An int8 file is made on training photos, measured on validation photos, and kept only where it says the same."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import petalpaw
from inference.classifier import Classifier
from inference.errors import AgreementTooLow, DataInvalid, ParameterInvalid, RunInvalid
from inference.golden import golden_crops
from inference.manifest import (
    INT8,
    MANIFEST,
    PARITY,
    Golden,
    Manifest,
    ParityReport,
    QuantizedFigure,
    digest_of,
    file_entry,
)
from inference.prediction import Prediction
from inference.repository import EXPORTED, Artifact, Repository
from training.int8 import add_int8
from training.recipe import load_recipe
from training.republish import reopened, splits_of
from training.splits import find_splits, fingerprint

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210)}
LAYERS = ("first", "second", "third", "fourth")
Labelled = list[tuple[Path, int]]

RECIPE = """
name: colours
title: Which colour
description: Tells three colours apart.
data: {train: {folder: photos}, validation: {share: 0.25, of: train}}
backbone: {name: mobilenet_v3_small, weights: none}
preprocessing: {resize: 36, crop: 32}
stages: [{name: all, epochs: 1, rates: {head: 0.001}}]
"""

MEASURING = """
import sys
from pathlib import Path
from inference.repository import Artifact
from training import int8

def measure(*_):
    print("measuring", flush=True)
    sys.stdin.read()

int8.measure = measure
int8.add_int8(Artifact.open(Path(sys.argv[1])), [Path(name) for name in sys.argv[2:]], [])
"""


def network(path: Path, outlier: float) -> None:
    """Four 1×1 convolutions that hand on three colours and, beside them, `outlier` times their sum; then the means."""
    mixing = np.eye(4, dtype=np.float32)
    first = np.zeros((4, 3), dtype=np.float32)
    first[:3], first[3] = np.eye(3) / 255, outlier / 255
    tensors = {"network.last.weight": np.eye(3, 4, dtype=np.float32), "network.last.bias": np.zeros(3, np.float32)}
    nodes = [
        helper.make_node("Transpose", ["images"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["x0"], to=TensorProto.FLOAT),
    ]
    for index, layer in enumerate(LAYERS):
        tensors[f"network.{layer}.weight"] = (mixing if index else first)[:, :, None, None]
        tensors[f"network.{layer}.bias"] = np.zeros(4, dtype=np.float32)
        inputs = [f"x{index}", f"network.{layer}.weight", f"network.{layer}.bias"]
        nodes.append(helper.make_node("Conv", inputs, [f"x{index + 1}"], name=layer))
    nodes += [
        helper.make_node("GlobalAveragePool", ["x4"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", *list(tensors)[:2]], ["logits"], name="last", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 32, 32, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.fixture
def make_artifact(exported: Path) -> Callable[..., Artifact]:
    """A maker of exported artifacts of this network, with the golden logits that it really has."""

    def make(outlier: float = 1.0, fingerprint: str = digest_of(b"nothing")) -> Artifact:
        network(exported / "model.onnx", outlier)
        manifest = Manifest.model_validate_json((exported / MANIFEST).read_bytes())
        crops = golden_crops(32)
        changed = manifest.model_copy(
            update={
                "files": manifest.files | {"model.onnx": file_entry(exported / "model.onnx")},
                "golden": Golden(
                    crops_sha256=digest_of(crops.tobytes()),
                    logits=(crops.astype(np.float64).mean(axis=(1, 2)) / 255).tolist(),
                    tolerance=1e-3,
                ),
                "provenance": manifest.provenance.model_copy(update={"data_fingerprint": fingerprint}),
            }
        )
        (exported / MANIFEST).write_text(changed.to_json())
        report = json.loads((exported / PARITY).read_text())
        report["files"]["model.onnx"] = changed.files["model.onnx"].sha256
        (exported / PARITY).write_text(json.dumps(report))
        return Artifact.open(exported)

    return make


@pytest.fixture
def data(tmp_path: Path, picture: Callable[..., bytes]) -> Path:
    """A data root with eight photos of each colour."""
    for label, colour in COLOURS.items():
        folder = tmp_path / "data" / "photos" / label
        folder.mkdir(parents=True)
        for number in range(8):
            (folder / f"{number}.jpg").write_bytes(picture(colour, size=(48, 40), seed=number))
    return tmp_path / "data"


@pytest.fixture
def labelled(data: Path) -> Labelled:
    return [
        (path, index) for index, label in enumerate(COLOURS) for path in sorted((data / "photos" / label).iterdir())
    ]


def test_a_good_file_is_kept_with_its_figures(
    make_artifact: Callable[..., Artifact], labelled: Labelled, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    made = add_int8(make_artifact(), [path for path, _ in labelled], labelled)
    quantized = made.manifest.quantized
    assert quantized is not None
    assert (quantized.images, quantized.calibration, quantized.excluded) == (24, "minmax", ("first", "second"))
    for figure in quantized.figures:
        assert (figure.images, figure.agreement, figure.accuracy, figure.accuracy_fp32) == (24, 1, 1, 1)
        assert 0 < figure.mean_difference <= figure.max_difference < 0.02
        assert figure.agreement_low < 0.9
    assert "`onnx-int8` | 24 | 100.00%" in (made.folder / "README.md").read_text()
    weights = onnx.load(made.folder / INT8).graph.initializer
    whole = {tensor.name for tensor in weights if tensor.data_type == TensorProto.INT8}
    assert {"network.third.weight_quantized", "network.fourth.weight_quantized"} <= whole
    assert not {"network.first.weight_quantized", "network.second.weight_quantized"} & whole
    report = ParityReport.model_validate_json((made.folder / PARITY).read_bytes())
    assert report.quantized == quantized.figures
    assert report.files[INT8] == made.manifest.files[INT8].sha256
    published = Repository(tmp_path / "models").publish(made.folder)
    answers = Classifier.load(published, runtime="onnx-int8", device="cpu").classify(
        [picture(colour, seed=99) for colour in COLOURS.values()]
    )
    assert [answer.label for answer in answers if isinstance(answer, Prediction)] == list(COLOURS)


def test_a_network_that_quantises_badly_is_refused(make_artifact: Callable[..., Artifact], labelled: Labelled) -> None:
    """One channel a thousand times the others: a step of its 256 is more than the others ever have."""
    artifact = make_artifact(outlier=1000.0)
    before = {path.name: path.read_bytes() for path in artifact.folder.iterdir()}
    with pytest.raises(AgreementTooLow) as refused:
        add_int8(artifact, [path for path, _ in labelled], labelled)
    assert "onnx-int8 gives model.onnx's label on 33.33% of 24 validation photos" in refused.value.detail
    assert "is right on 33.33% of them instead of 100.00%" in refused.value.detail
    assert "Leave the most sensitive layers in float32 with --exclude" in refused.value.detail
    assert {path.name: path.read_bytes() for path in artifact.folder.iterdir()} == before
    assert [path.name for path in artifact.folder.parent.iterdir() if path.name.startswith(".")] == []


def test_what_is_excluded_stays_exact(make_artifact: Callable[..., Artifact], labelled: Labelled) -> None:
    photos = [path for path, _ in labelled]
    made = add_int8(make_artifact(outlier=1000.0), photos, labelled, exclude=["third", "fourth", "last"])
    assert made.manifest.quantized is not None
    assert made.manifest.quantized.excluded == ("first", "second", "third", "fourth", "last")
    assert made.manifest.quantized.figures[0].max_difference < 1e-3
    with pytest.raises(ParameterInvalid, match="no layer is called fif; the model has first, second, third, fourth, l"):
        add_int8(made, photos, labelled, exclude=["fif"])


def test_percentiles_and_a_second_time(make_artifact: Callable[..., Artifact], labelled: Labelled) -> None:
    photos = [path for path, _ in labelled]
    made = add_int8(make_artifact(), photos, labelled, calibration="percentile")
    again = add_int8(made, photos[::2], labelled)
    assert again.manifest.quantized is not None
    assert (again.manifest.quantized.calibration, again.manifest.quantized.images) == ("minmax", 12)
    assert (again.folder / "README.md").read_text().count("In 8-bit integers") == 1


def test_photos_that_are_gone_or_unreadable(
    make_artifact: Callable[..., Artifact], labelled: Labelled, tmp_path: Path
) -> None:
    artifact = make_artifact()
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    broken, photos = [(tmp_path / "broken.jpg", 0)], [path for path, _ in labelled]
    with pytest.raises(DataInvalid, match="no training photo could be read"):
        add_int8(artifact, [tmp_path / "broken.jpg"], labelled)
    with pytest.raises(DataInvalid, match="no validation photo could be read"):
        add_int8(artifact, photos, broken)
    with pytest.raises(DataInvalid, match=r"absent\.jpg cannot be read .* say with --data where"):
        add_int8(artifact, [tmp_path / "absent.jpg"], labelled)


def test_what_a_killed_export_left_goes_and_what_a_living_one_has_stays(
    make_artifact: Callable[..., Artifact], labelled: Labelled
) -> None:
    artifact, photos = make_artifact(), [path for path, _ in labelled]
    run, before = artifact.folder.parent, set(artifact.folder.parent.iterdir())
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    program = [sys.executable, "-c", MEASURING, str(artifact.folder), *map(str, photos)]
    with subprocess.Popen(program, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"measuring\n"
        (written,) = run.glob(f".*/{INT8}")
        with pytest.raises(RunInvalid, match="another process works in"):
            add_int8(artifact, photos, labelled)
        assert written.exists()
        process.kill()
    assert written.exists()
    assert add_int8(artifact, photos, labelled).manifest.quantized
    assert set(run.iterdir()) == before


def test_all_that_a_kill_could_leave_lies_in_the_folder_that_is_swept(
    make_artifact: Callable[..., Artifact], labelled: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made, usual = tempfile.mkdtemp, list[Path](), tempfile.gettempdir()

    def noted(*arguments: Any, **options: Any) -> str:
        made.append(Path(make(*arguments, **options)))
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", noted)
    artifact = make_artifact()
    add_int8(artifact, [path for path, _ in labelled], labelled)
    assert {path.name.split(".")[0] for path in made} >= {"pre", "ort"}  # the quantizer's own
    assert {path.relative_to(artifact.folder.parent).parts[0] for path in made} == {".building"}
    assert tempfile.gettempdir() == usual


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(petalpaw.app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_published_model_by_the_photos_that_it_was_made_from(
    make_artifact: Callable[..., Artifact], data: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    splits, labels, _ = find_splits(recipe.data, data, recipe.seed)
    published = Repository(tmp_path / "models").publish(make_artifact(fingerprint=fingerprint(splits, labels)).folder)
    options = ("--precision", "int8", "--data", data, "--recipe", tmp_path / "recipe.yaml", "--run", tmp_path / "run")
    before = {path.name: path.read_bytes() for path in published.folder.iterdir()}
    status, said = command("export", published.folder, *options, "--photos", 9)
    assert status == 0, said
    assert {path.name: path.read_bytes() for path in published.folder.iterdir()} == before
    made = Artifact.open(tmp_path / "run" / EXPORTED)
    assert made.manifest.quantized is not None
    assert (made.manifest.quantized.images, made.manifest.quantized.figures[0].images) == (9, 6)
    assert command("publish", tmp_path / "run", "--models", tmp_path / "models")[0] == 0
    assert Repository(tmp_path / "models").open("colours").version == "2"
    (data / "photos" / "red" / "0.jpg").unlink()
    with pytest.raises(DataInvalid, match=r"are not those that colours was made from .*cannot be known which"):
        splits_of(published, str(tmp_path / "recipe.yaml"), data)


def test_an_artifact_opened_again_can_be_published_as_it_was(
    make_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    models = Repository(tmp_path / "models")
    first = models.publish(make_artifact().folder)
    again = reopened(first, tmp_path / "run")
    assert (again.version, again.manifest.parity, PARITY in again.manifest.files) == ("0", (), False)
    second = models.publish(again.folder)
    assert second.manifest.model_copy(update={"version": "1"}) == first.manifest


def test_a_run_is_quantised_on_its_own_splits(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small run's network is hardly trained, so nothing here asks that its labels stay the same."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    monkeypatch.setattr(QuantizedFigure, "passed", True)
    status, said = command("export", run, "--precision", "int8")
    assert status == 0, said
    quantized = Artifact.open(run / EXPORTED).manifest.quantized
    assert quantized is not None
    assert (quantized.images, quantized.figures[0].images) == (24, 6)
    assert quantized.excluded[0] == "features.0.0"
    assert command("parity", run)[0] == 0
    report = ParityReport.model_validate_json((run / EXPORTED / PARITY).read_bytes())
    assert (INT8 in report.files, report.quantized) == (True, quantized.figures)
    status, said = command("parity", run, "--runtime", "onnx-int8")
    assert (status, "int8 is compared by" in said) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("RUN", "--data", "."), "belong to --precision int8"),
        (("RUN", "--photos", "128"), "belong to --precision int8"),
        (("RUN", "--calibration", "minmax"), "belong to --precision int8"),
        (("MODEL",), "belong to --precision int8"),
        (("RUN", "--precision", "int8", "--recipe", "x"), "belong to a published artifact"),
        (("MODEL", "--precision", "int8"), "say so with --data"),
    ],
)
def test_wrong_usage(
    arguments: tuple[str, ...], said: str, make_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    places = {"RUN": tmp_path / "run", "MODEL": make_artifact().folder}
    status, output = command("export", *(places.get(argument, argument) for argument in arguments))
    assert status == 2
    assert said in " ".join(output.replace("│", " ").split())


def test_int8_of_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunInvalid, match="is not a run folder"):
        command("export", tmp_path, "--precision", "int8")
