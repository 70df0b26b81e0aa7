import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.figures import wilson_interval
from inference.errors import DataInvalid, RunInvalid
from inference.prediction import predictions
from training import pictures
from training.assess import assess_again
from training.card import model_card
from training.evaluate import Outcome
from training.finetune import train
from training.history import read_history
from training.rates import find_rate
from training.recipe import Recipe
from training.report import SplitReport
from training.run import Run, check_place, read_record
from training.splits import fingerprint, read_splits


def test_a_run_folder_holds_everything(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        *("recipe.resolved.yaml", "run.json", "splits.csv", "checks.csv", "left_out.csv", "best.pt", "last.pt"),
        *("history.csv", "steps.csv", "metrics.json", "per_class.csv", "README.md"),
        *("curves.png", "iterations.png", "batch.png", "confusion.png", "calibration.png", "mistakes.png"),
        *("gradcam.png", "residuals.png", "residuals.csv", "report.html"),
    }


def test_the_opened_run_agrees_with_its_files(finished: Path, photos_root: Path) -> None:
    run = Run.open(finished)
    assert run.labels == ("circles", "squares", "triangles")
    assert run.provenance.recipe_sha256 == run.recipe.digest
    splits = read_splits(finished / "splits.csv")
    assert run.provenance.data_fingerprint == fingerprint(splits, run.labels)
    assert [len(run.items(split)) for split in ("train", "validation", "test")] == [24, 6, 6]
    assert run.data_root == photos_root.resolve()
    assert run.metrics is not None
    figures = json.loads((finished / "metrics.json").read_text())["splits"]["test"]
    assert figures["accuracy"] == run.metrics.accuracy
    assert sum(map(sum, figures["confusion"])) == run.metrics.images == 6
    low, high = wilson_interval(round(run.metrics.accuracy * 6), 6)
    assert (run.metrics.accuracy_low, run.metrics.accuracy_high) == (low, high)


def test_the_module_gives_the_measured_accuracy(finished: Path) -> None:
    run = Run.open(finished)
    module = run.module()
    assert not module.training
    assert run.metrics is not None
    crops = np.stack([run.recipe.preprocessing(path.read_bytes()) for path in run.photos("test")])
    with torch.inference_mode():
        logits = module(torch.from_numpy(crops)).numpy()
    answers = predictions(logits, run.labels, run.calibration)
    right = sum(answer.label == run.labels[item.label] for answer, item in zip(answers, run.items("test"), strict=True))
    assert right / len(answers) == run.metrics.accuracy
    torch.testing.assert_close(module(torch.from_numpy(crops[:1])), torch.from_numpy(logits[:1]), atol=1e-5, rtol=0)


def test_photos_are_spread_over_a_split(finished: Path, tmp_path: Path) -> None:
    run = Run.open(finished)
    some = run.photos("train", limit=3)
    assert [path.parent.name for path in some] == ["circles", "squares", "triangles"]
    assert run.photos("test", limit=99) == run.photos("test")
    with pytest.raises(DataInvalid, match="6 photos of test are gone"):
        run.photos("test", data_root=tmp_path)
    with pytest.raises(RunInvalid, match="no split 'holdout'"):
        run.items("holdout")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, "is not a run folder"),
        ("run.json", "{}", "is damaged or of another format: labels"),
        ("run.json", "not json", "is damaged or of another format"),
        ("recipe.resolved.yaml", "name: x", "the run folder .* is damaged"),
        ("recipe.resolved.yaml", None, "the run folder .* is damaged"),
        ("splits.csv", "a,b\n1,2\n", "splits.csv is missing or damaged"),
        ("splits.csv", None, "splits.csv is missing or damaged"),
        ("best.pt", "x", "best.pt is damaged"),
        ("best.pt", None, "best.pt does not exist"),
    ],
)
def test_damaged_run_folders(finished: Path, tmp_path: Path, name: str, content: str | None, message: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(RunInvalid, match=message):
        use(folder)


def use(folder: Path) -> None:
    run = Run.open(folder)
    run.items("test")
    run.module()


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunInvalid, match="file is not a run folder"):
        read_record(tmp_path / "file")


@pytest.mark.parametrize(
    ("train_data", "inside"),
    [({"folder": "."}, "runs/mine"), ({"folder": "shapes"}, "shapes/mine"), ({"folders": {"a": "x", "b": "y"}}, "y/z")],
)
def test_a_run_among_the_photos_is_refused(
    make_recipe: Callable[..., Recipe], tmp_path: Path, train_data: dict[str, object], inside: str
) -> None:
    recipe = make_recipe(data={"train": train_data, "validation": {"share": 0.2, "of": "train"}})
    with pytest.raises(RunInvalid, match=r"would lie among the photos in .*; choose one elsewhere with --run"):
        train(recipe, tmp_path, None, tmp_path / inside, device="cpu")
    with pytest.raises(RunInvalid, match="would lie among the photos"):
        find_rate(recipe, tmp_path, None, tmp_path / inside, device="cpu")
    assert not (tmp_path / inside).exists()
    check_place(tmp_path.with_name("beside"), recipe, tmp_path)


def test_a_changed_recipe_and_an_unfinished_run_are_refused(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"finished"', '"training"'))
    with pytest.raises(RunInvalid, match=f"--resume {folder}"):
        Run.open(folder)
    recipe = (folder / "recipe.resolved.yaml").read_text()
    (folder / "recipe.resolved.yaml").write_text(recipe.replace("seed: 3", "seed: 4"))
    with pytest.raises(RunInvalid, match="is not the recipe"):
        read_record(folder)


def test_assessing_again_gives_the_same_figures(finished: Path, photos_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "metrics.json").unlink()
    assess_again(folder, photos_root, "cpu")
    for name in ("metrics.json", "per_class.csv", "README.md", "run.json", "confusion.png"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_while_figures_are_written_is_said(finished: Path, photos_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "confusion.png").unlink()
    (folder / "confusion.png").symlink_to("/dev/full")
    with pytest.raises(RunInvalid, match=f"No space left on device.*its weights are whole.*petalpaw evaluate {folder}"):
        assess_again(folder, photos_root, "cpu")
    (folder / "confusion.png").unlink()
    assess_again(folder, photos_root, "cpu")
    assert (folder / "confusion.png").read_bytes() == (finished / "confusion.png").read_bytes()


def test_assessing_on_other_photos_is_refused(finished: Path, make_photos: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    make_photos(tmp_path / "data" / "shapes", per_class=10)
    with pytest.raises(DataInvalid, match="are not those of the run"):
        assess_again(folder, tmp_path / "data", "cpu")


def test_the_card_says_what_was_measured_on_which_photos(finished: Path) -> None:
    run, card = Run.open(finished), (finished / "README.md").read_text()
    assert run.metrics is not None
    assert f"| test | 6 | {run.metrics.accuracy:.2%} | {run.metrics.accuracy_low:.2%} to" in card
    for part in ("## Intended use", "## Calibration", "## Limits", run.provenance.data_fingerprint, run.recipe.digest):
        assert part in card
    assert str(run.data_root) not in card


def test_history_reads_back(finished: Path) -> None:
    epochs = read_history(finished / "history.csv")
    assert [(epoch.epoch, epoch.stage) for epoch in epochs] == [(1, "head"), (2, "everything"), (3, "everything")]
    assert all(0 <= epoch.waiting <= 1 for epoch in epochs)
    assert any(epoch.kept for epoch in epochs)


def test_labels_of_any_script_and_no_test_split(
    make_recipe: Callable[..., Recipe], make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    make_photos(root / "shapes", per_class=6)
    for old, new in (("circles", "two words | $x$"), ("squares", "蒲公英"), ("triangles", "🌹")):
        (root / "shapes" / old).rename(root / "shapes" / new)
    recipe = make_recipe(
        data={"train": {"folder": "shapes"}, "validation": {"share": 0.3, "of": "train"}},
        stages=[{"name": "s", "epochs": 1, "rates": {"head": 0.01}}],
    )
    train(recipe, root, None, tmp_path / "run", device="cpu", workers=0)
    run = Run.open(tmp_path / "run")
    assert run.labels == ("two words | $x$", "蒲公英", "🌹")
    assert run.metrics is None
    card = (tmp_path / "run" / "README.md").read_text()
    assert "has no test split" in card
    assert "two words \\| $x$ |" in card


def test_no_label_breaks_the_card(finished: Path) -> None:
    run, (record, _) = Run.open(finished), read_record(finished)
    labels = ("plain_name", "a`b|c", "two\n\n# lines")
    outcome = Outcome("test", np.eye(3, dtype=np.float32) * 9, np.array([0, 1, 1]))
    report = SplitReport.of(outcome, labels, run.calibration)
    record = record.model_copy(update={"labels": labels})
    card = model_card(run.recipe, record, [report], {"test": 3}, run.calibration)
    assert "a photo shows: `plain_name`, `` a`b|c ``, `two # lines`.\n" in card
    for cell in ("| plain_name |", "| a\\`b\\|c |", "| two # lines |"):
        assert f"\n{cell} " in card
    assert "The weakest class on test is `two # lines`:" in card


def test_pictures_are_pictures(finished: Path, tmp_path: Path) -> None:
    for path in finished.glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 200, path
    pictures.draw_mistakes(tmp_path / "none.png", [], [], "test")
    assert (tmp_path / "none.png").exists()


def test_worst_mistakes_come_first() -> None:
    predicted = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    assert pictures.worst_mistakes(predicted, np.array([1, 0, 1, 1]), most=2) == [0, 1]


def test_text_that_the_font_lacks_becomes_boxes() -> None:
    assert pictures.readable("rose 蒲公英 é\n") == "rose □□□ é□"
    assert pictures.shortened("a" * 20, 5) == "aaaa…"
