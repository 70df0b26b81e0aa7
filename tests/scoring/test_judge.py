"""Evaluation by scoring: figures of the very answers that scoring gives, against folders or a column of classes."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix

from evaluation.figures import wilson_interval
from inference.classifier import Classifier
from inference.errors import DataInvalid, OutputUnwritable
from inference.prediction import Prediction
from inference.repository import Repository
from scoring.files import Files
from scoring.judge import Judge
from scoring.local import LocalEngine
from scoring.run import score
from scoring.scorer import Scorer
from scoring.tables import Table
from scoring.truth import column_truth, folder_truth

ROOT = Path(__file__).parents[2]
LABELS = ("red", "green", "blue")
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210)}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, picture: Callable[..., bytes]) -> Path:
    """30 pictures in folders of their class; three lie in a wrong one, one is damaged, one in no class at all."""
    root = tmp_path_factory.mktemp("labelled") / "test"
    for place, label in enumerate(LABELS):
        folder = root / label / "deeper"
        folder.mkdir(parents=True)
        for index in range(10):
            shown = "blue" if label == "red" and index < 3 else label
            (folder / f"{index}.jpg").write_bytes(picture(COLOURS[shown], (60, 50), seed=10 * place + index))
    (root / "green" / "damaged.jpg").write_bytes(picture()[:300])
    (root / "other.jpg").write_bytes(picture())
    return root


def evaluate(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "petalpaw", "evaluate", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_figures_are_those_of_the_classifiers_answers(
    labelled: Path, classifier: Classifier, repository: Repository, tmp_path: Path
) -> None:
    folder = tmp_path / "figures"
    done = evaluate(labelled, "--model", "colours", "--models", repository.root, "--output", folder)
    assert done.returncode == 1, done.stderr  # one failed, one has no class
    found = json.loads(done.stdout)
    assert (folder / "metrics.json").read_text() == done.stdout
    truth, predicted = [], []
    for path in sorted(labelled.rglob("deeper/*.jpg")):
        (answer,) = classifier.classify([path.read_bytes()])
        assert isinstance(answer, Prediction)
        truth.append(path.parts[-3])
        predicted.append(answer.label)
    assert found["images"] == 30
    assert found["accuracy"] == accuracy_score(truth, predicted) == 0.9
    assert (found["accuracy_low"], found["accuracy_high"]) == wilson_interval(27, 30)
    assert found["confusion"] == confusion_matrix(truth, predicted, labels=LABELS).tolist()
    assert found["per_class"][0]["recall"] == 0.7
    assert (found["per_class"][0]["recall_low"], found["per_class"][0]["recall_high"]) == wilson_interval(7, 10)
    assert (found["failed"], found["unlabelled"]) == ({"image_truncated": 1}, 1)
    assert found["model"] == "colours/1"
    assert found["source"] == str(labelled)
    assert "accuracy 90.00% (95 % interval" in done.stderr
    mistakes = csv.DictReader((folder / "mistakes.csv").read_text().splitlines())
    assert [(row["truth"], row["label"], row["error_code"]) for row in mistakes] == [
        ("green", "", "image_truncated"),
        ("", "red", ""),
        *[("red", "blue", "")] * 3,
    ]
    assert len((folder / "per_class.csv").read_text().splitlines()) == 1 + 3
    for name in ("confusion.png", "calibration.png"):
        assert np.asarray(Image.open(folder / name)).std() > 10


def test_true_classes_from_a_column(labelled: Path, classifier: Classifier, tmp_path: Path) -> None:
    table = tmp_path / "pictures.csv"
    paths = sorted(labelled.rglob("deeper/*.jpg"))
    names = [path.parts[-3] for path in paths]
    # By name or by index, and one that is neither.
    values = [name if index % 2 else str(LABELS.index(name)) for index, name in enumerate(names)]
    values[4] = "purple"
    rows = [("file", "class"), *zip(paths, values, strict=True)]
    table.write_text("".join(f"{path},{value}\n" for path, value in rows))
    judge = Judge(column_truth(Table(str(table), "class"), LABELS), LABELS)
    score(Table(str(table), "file"), LocalEngine(Scorer(classifier)), judge)
    found = judge.judgement()
    assert (found.images, found.unlabelled) == (29, 1)
    assert found.confusion.trace() == 26


def test_folders_that_are_named_otherwise_are_refused_before_scoring(labelled: Path, tmp_path: Path) -> None:
    shutil.copytree(labelled / "red", tmp_path / "rouge")
    with pytest.raises(DataInvalid, match=r"first 10 pictures .* named like a class \(red, green, blue\)"):
        folder_truth(Files([tmp_path / "rouge"]), LABELS)


def test_a_folder_that_holds_something_is_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(OutputUnwritable, match="holds something already"):
        Judge(lambda _: 0, LABELS, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["photos", "--labels", "class"], "--labels names a column of one table"),
        (["photos", "--data", "elsewhere"], "it has no run.json"),
        (["run", "--model", "colours"], "is a run: it has its own model"),
        (["-"], "name the files themselves"),
    ],
)
def test_options_that_fit_no_target(
    labelled: Path, repository: Repository, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "photos").symlink_to(labelled)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    target = "-" if arguments[0] == "-" else tmp_path / arguments[0]
    done = evaluate(target, *arguments[1:], "--models", repository.root, "--model", "colours")
    assert done.returncode == 2
    assert says in " ".join(done.stderr.replace("│", " ").split())


def test_column_without_a_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("photo,y\na.jpg,xx\nb.jpg,Red\n")
    with pytest.raises(
        DataInvalid, match=r"names no class of the model's: it begins with 'xx', 'Red'; .* red, green, blue"
    ):
        column_truth(Table(str(tmp_path / "t.csv"), "y"), LABELS)
