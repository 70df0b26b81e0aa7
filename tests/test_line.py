"""The whole line on photos made here: train → export → parity → publish → classify.

The parity check runs on every device that is present, so on a machine with a GPU the same tests cover CUDA.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.classifier import Classifier
from inference.errors import PublishRefused
from inference.golden import golden_crops
from inference.manifest import PARITY, ParityReport
from inference.prediction import Prediction
from inference.repository import Artifact, Repository
from training.export import export, export_onnx
from training.finetune import train
from training.parity import BATCHES, check, compare, report, structure_problems
from training.recipe import load_recipe
from training.run import Run

COLOURS = {"blue ones": (30, 40, 210), "green": (30, 200, 40), "红": (220, 30, 30)}

RECIPE = """
name: colours
title: Which colour
description: Tells three colours apart.
data:
  train: {folder: photos}
  validation: {share: 0.25, of: train}
  test: {share: 0.25, of: train}
backbone: {name: resnet18, weights: none}
preprocessing: {resize: 72, crop: 64}
normalization: {mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
stages:
  - {name: everything, epochs: 10, trains: all, rates: {head: 0.001}, optimizer: {kind: adamw}}
augmentation: {size: 64, scale: [0.8, 1.0]}
batch_size: 8
precision: fp32
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, picture: Callable[..., bytes]) -> Run:
    """A small network, really trained."""
    root = tmp_path_factory.mktemp("line")
    for label, colour in COLOURS.items():
        folder = root / "photos" / label
        folder.mkdir(parents=True)
        for index in range(16):
            (folder / f"{index}.jpg").write_bytes(picture(colour, size=(90 + index, 80), seed=index))
    (root / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe(root / "recipe.yaml", root)
    assert train(recipe, root, None, root / "run", workers=0).status == "finished"
    return Run.open(root / "run")


@pytest.fixture(scope="module")
def exported(run: Run) -> Artifact:
    return export(run)


@pytest.fixture(scope="module")
def passed(run: Run, exported: Artifact) -> ParityReport:
    return report(exported, check(exported, run.module(), run.photos("validation")))


def test_every_file_gives_pytorchs_answers(run: Run, exported: Artifact, passed: ParityReport) -> None:
    assert passed.problems == ()
    assert passed.passed
    assert passed.batches == BATCHES == (1, 2, 7, 32)
    assert passed.photos == len(run.items("validation")) == 12
    assert {(figure.runtime, figure.device) for figure in passed.figures} >= {("onnx", "cpu"), ("torchscript", "cpu")}
    for figure in passed.figures:
        assert figure.top1_agreement == 1
        assert 0 < figure.max_difference <= figure.tolerance
    assert set(passed.files) == {"model.onnx", "model.torchscript.pt"}


def test_further_runtimes_are_compared_when_asked_for(run: Run, exported: Artifact) -> None:
    found = list(check(exported, run.module(), run.photos("validation", 4), ("openvino", "onnx")))
    assert {item.runtime for item in found} == {"onnx", "torchscript", "openvino"}
    assert [item for item in found if item.problems] == []


def test_export_carries_no_path_of_this_machine(exported: Artifact) -> None:
    for name in exported.manifest.files:
        content = (exported.folder / name).read_bytes()
        for place in (str(exported.folder.parents[1]), torch.__path__[0], "site-packages"):
            assert place.encode() not in content, (name, place)


def test_a_published_model_answers_on_both_runtimes(
    exported: Artifact, passed: ParityReport, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    assert passed.passed
    models = Repository(tmp_path / "models")
    published = models.publish(exported.folder)
    assert (published.name, published.version) == ("colours", "1")
    assert published.manifest.parity == passed.figures
    assert published.manifest.labels == tuple(COLOURS)
    photos = [picture(colour, seed=99) for colour in COLOURS.values()]
    for runtime in ("onnx", "torchscript"):
        answers = Classifier.load(published, runtime=runtime, device="cpu").classify(photos)
        labels = [answer.label for answer in answers if isinstance(answer, Prediction)]
        assert labels == list(COLOURS), runtime


def test_another_networks_weights_fail_parity_and_are_not_published(
    run: Run, exported: Artifact, passed: ParityReport, tmp_path: Path
) -> None:
    import shutil

    assert passed.passed
    copy = tmp_path / "artifact"
    shutil.copytree(exported.folder, copy)
    module = run.module()
    with torch.no_grad():
        next(iter(module.network.parameters())).mul_(1.05)
    failed = report(Artifact.open(copy), check(Artifact.open(copy), module, run.photos("validation", 4)))
    assert not failed.passed
    assert any("torchscript on cpu: at batch 7 the largest" in problem for problem in failed.problems)
    with pytest.raises(PublishRefused, match="parity failed"):
        Repository(tmp_path / "models").publish(copy)
    (copy / PARITY).unlink()
    with pytest.raises(PublishRefused, match="run `petalpaw parity`"):
        Repository(tmp_path / "models").publish(copy)
    assert not (tmp_path / "models").exists()


def test_golden_inputs_alone_prove_nothing(run: Run, exported: Artifact, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "artifact"
    shutil.copytree(exported.folder, copy)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    failed = report(Artifact.open(copy), check(Artifact.open(copy), run.module(), [tmp_path / "broken.jpg"]))
    assert not failed.passed
    assert any("no photo was compared" in problem for problem in failed.problems)


def test_a_baked_in_batch_size_is_a_structural_problem(run: Run, exported: Artifact, tmp_path: Path) -> None:
    import onnx

    module = run.module()
    export_onnx(module, golden_crops(64)[:2], tmp_path / "good.onnx")
    assert structure_problems(tmp_path / "good.onnx", exported.manifest.signature) == []
    model = onnx.load(tmp_path / "good.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    model.graph.output[0].name = "scores"
    onnx.save(model, tmp_path / "bad.onnx")
    problems = structure_problems(tmp_path / "bad.onnx", exported.manifest.signature)
    assert len(problems) == 2
    assert "'shape': (2, 64, 64, 3)" in problems[0]
    assert "scores" in problems[1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda logits: logits + np.float32(0.01), "largest |Δlogit|"),
        (lambda logits: np.full_like(logits, np.nan), "largest |Δlogit|"),
        (lambda logits: logits[:, ::-1], "whose best class changed is 3"),
        (lambda logits: logits.astype(np.float64), "gives float64"),
        (lambda logits: logits[:2], "gives float32 (2, 3)"),
    ],
)
def test_compare_finds_each_kind_of_difference(
    change: Callable[[np.ndarray], np.ndarray],  # type: ignore[type-arg]
    says: str,
) -> None:
    expected = np.array([[3, 0, 1], [0, 1, 3], [-2, -1, 4]], np.float32)
    assert compare("onnx", "cpu", 1, expected, expected.copy(), 1e-3).problems == ()
    assert any(says in problem for problem in compare("onnx", "cpu", 1, expected, change(expected), 1e-3).problems)


def test_a_tie_that_flips_is_no_problem_but_is_counted() -> None:
    expected = np.array([[1.0, 1.0001], [2.0, 0.0]], np.float32)
    found = np.array([[1.0001, 1.0], [2.0, 0.0]], np.float32)
    tied = compare("onnx", "cpu", 1, expected, found, 1e-3)
    assert tied.problems == ()
    assert tied.top1_agreement == 0.5
