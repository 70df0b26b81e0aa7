from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from inference.errors import RecipeInvalid, RunInvalid
from training import finetune
from training.backbones import build
from training.compute import Compute
from training.dataset import open_photos
from training.export import export_onnx
from training.feed import features_of
from training.finetune import train
from training.history import read_history
from training.pixels import PixelStore
from training.recipe import Recipe, load_recipe
from training.run import Run
from training.sections import Solver
from training.solver import Points, check_solver, solve

Make = Callable[..., Recipe]


def solved(kind: str, strengths: tuple[float, ...] = (0.01, 1.0)) -> dict[str, Any]:
    return {
        "name": "solved",
        "epochs": 1,
        "trains": "head",
        "cached_features": True,
        "solver": {"kind": kind, "strengths": list(strengths)},
    }


def points(classes: int, photos: int = 60, width: int = 20) -> Points:
    """Overlapping clouds of very different scales, so that every strength and the scaling matter."""
    dice = np.random.default_rng(classes)
    labels = np.arange(photos) % classes
    features = dice.normal(size=(photos, width)) + labels[:, None] * dice.normal(size=width) * 0.3
    return Points(features * dice.uniform(0.01, 100, width) + dice.normal(size=width) * 10, labels)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("kind", ["svm", "logistic"])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_solution_is_scikit_learns_pipeline_in_one_layer(
    make_recipe: Make, weights: str, kind: Literal["svm", "logistic"], classes: int
) -> None:
    train_points, seen = points(classes), points(classes, 90)
    kept = np.argsort(train_points.labels, kind="stable")[:-10]  # the last class is rare
    train_points = Points(train_points.features[kept], train_points.labels[kept])
    recipe = make_recipe(class_weights=weights)
    solution = solve(recipe, Solver(kind=kind, strengths=(0.1,)), train_points, seen, lambda: None)
    options = {"C": 0.1, "max_iter": 10_000, "class_weight": "balanced" if weights == "balanced" else None}
    estimator = LinearSVC(**options, random_state=3) if kind == "svm" else LogisticRegression(**options)
    pipeline = make_pipeline(StandardScaler(), estimator).fit(train_points.features, train_points.labels)
    layer = nn.Linear(20, classes)
    solution.fold_into(layer)
    logits = layer(torch.from_numpy(seen.features).float()).detach().numpy()
    decided = logits[:, 1] - logits[:, 0] if classes == 2 else logits
    np.testing.assert_allclose(decided, pipeline.decision_function(seen.features), atol=1e-4)
    assert (logits.argmax(axis=1) == pipeline.predict(seen.features)).all()
    if kind == "logistic":
        expected = pipeline.predict_proba(seen.features)
        np.testing.assert_allclose(torch.tensor(logits).softmax(1).numpy(), expected, atol=1e-4)


def test_validation_chooses_the_strength(make_recipe: Make) -> None:
    recipe = make_recipe(selection={"metric": "loss"})
    train_points, seen = points(3, photos=30), points(3, photos=300)
    losses = {}
    for strength in (1e-6, 0.01, 1000.0):
        one = solve(recipe, Solver(kind="logistic", strengths=(strength,)), train_points, seen, lambda: None)
        losses[strength] = one.figures(seen, "validation")["calibrated_loss"]
    every = Solver(kind="logistic", strengths=tuple(losses))
    assert solve(recipe, every, train_points, seen, lambda: None).strength == min(losses, key=losses.__getitem__)
    assert len(set(losses.values())) == 3


@pytest.mark.parametrize(("kind", "labels"), [("svm", 3), ("logistic", 2)])
def test_an_exported_solved_head_gives_scikit_learns_answers(
    make_recipe: Make, make_photos: Callable[..., Path], tmp_path: Path, kind: str, labels: int
) -> None:
    make_photos(tmp_path / "shapes", labels=("circles", "squares", "triangles")[:labels])
    recipe = make_recipe(
        stages=[solved(kind)], precision="fp32", backbone={"name": "resnet18", "weights": "none"}, average=None
    )
    assert train(recipe, tmp_path, None, tmp_path / "run", device="cpu", workers=0).status == "finished"
    (row,) = read_history(tmp_path / "run" / "history.csv")
    assert row.kept
    assert row.rate in (0.01, 1.0)

    module, compute = Run.open(tmp_path / "run").module(), Compute.plan("cpu", recipe)
    torch.set_num_threads(1)
    with PixelStore(tmp_path / "pixels", 2**20) as store:
        photos = open_photos(recipe, tmp_path, store)
        known = Points.of(features_of(photos, "train", module, compute))
        new = Points.of(features_of(photos, "test", module, compute))
        crops = np.stack([photos.crop(item) for item in photos.splits["test"]])
    estimator = LinearSVC(C=row.rate, max_iter=10_000) if kind == "svm" else LogisticRegression(C=row.rate)
    pipeline = make_pipeline(StandardScaler(), estimator).fit(known.features, known.labels)
    export_onnx(module.to(memory_format=torch.contiguous_format), crops[:2], tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": crops})
    decided = logits[:, 1] - logits[:, 0] if labels == 2 else logits
    np.testing.assert_allclose(decided, pipeline.decision_function(new.features), atol=1e-4)
    assert (logits.argmax(axis=1) == pipeline.predict(new.features)).all()


def test_gradients_may_go_on_from_a_solved_head(
    make_recipe: Make, photos_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = {"name": "tuned", "epochs": 1, "trains": "head", "rates": {"head": 1e-6}}
    result = train(
        make_recipe(stages=[solved("svm"), tuned]), photos_root, None, tmp_path / "run", device="cpu", workers=0
    )
    assert result.epochs == 2
    assert [row.stage for row in read_history(tmp_path / "run" / "history.csv")] == ["solved", "tuned"]
    assert "warning: all weights are random and no stage trains 140 tensors of them, features.0.0.weight" in (
        capsys.readouterr().err
    )


def test_a_stopped_solver_is_resumed(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, folder, features = make_recipe(stages=[solved("svm")]), tmp_path / "run", finetune._features

    def stop(session: Any) -> Any:
        session.interruption.signal = "SIGINT"
        return features(session)

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "_features", stop)
        stopped = train(recipe, photos_root, None, folder, device="cpu", workers=0)
    assert (stopped.status, stopped.epochs) == ("interrupted", 0)
    result = train(recipe, photos_root, None, folder, resume=True, device="cpu", workers=0)
    assert (result.status, result.epochs) == ("finished", 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 2},
        {"trains": "all", "cached_features": False},
        {"cached_features": False},
        {"rates": {"head": 0.1}},
    ],
)
def test_a_stage_that_cannot_be_solved_is_refused(
    content: dict[str, Any], recipe_file: Callable[[dict[str, Any]], Path], changes: dict[str, Any]
) -> None:
    content["stages"] = [solved("svm") | changes]
    with pytest.raises(RecipeInvalid, match=r"stages\.0: the svm solver needs"):
        load_recipe(recipe_file(content))


def test_gradients_need_rates(content: dict[str, Any], recipe_file: Callable[[dict[str, Any]], Path]) -> None:
    content["stages"] = [{"name": "a", "epochs": 1}]
    with pytest.raises(RecipeInvalid, match="`rates` is missing"):
        load_recipe(recipe_file(content))


@pytest.mark.parametrize(
    "backbone", [{"name": "squeezenet1_1"}, {"name": "resnet18", "head": {"widths": [16], "dropouts": [0.5]}}]
)
def test_a_head_that_is_more_than_a_linear_layer_cannot_be_solved(make_recipe: Make, backbone: dict[str, Any]) -> None:
    (problem,) = check_solver(make_recipe(stages=[solved("svm")], backbone=backbone | {"weights": "none"}))
    assert f"stages.0.solver: the head of {backbone['name']} is no single linear layer" in problem
    assert check_solver(make_recipe(stages=[solved("svm")])) == []


def test_features_that_are_no_numbers_end_the_run(make_recipe: Make, photos_root: Path, tmp_path: Path) -> None:
    recipe = make_recipe(stages=[solved("svm")])
    state = build(recipe, 3).network.state_dict()
    state["features.0.0.weight"].fill_(float("nan"))
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(RunInvalid, match="features are no numbers"):
        train(recipe, photos_root, tmp_path / "weights.pth", tmp_path / "run", device="cpu", workers=0)
