"""A folder of photos, no recipe: train → export → parity → publish → classify, as the command line does it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision import models
from typer.testing import CliRunner

from inference.errors import PetalpawError
from petalpaw import app

COLOURS = {"two words": (30, 40, 210), "蒲公英": (30, 200, 40), "🌹": (220, 30, 30)}
SMALL = ["--set", "preprocessing.resize=36", "--set", "preprocessing.crop=32", "--set", "augmentation.size=32"]

Picture = Callable[..., bytes]


def do(*arguments: object) -> str:
    """What a command writes to stdout; it must succeed."""
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def photos(tmp_path: Path, picture: Picture) -> Path:
    for label, colour in COLOURS.items():
        folder = tmp_path / "our photos" / label
        folder.mkdir(parents=True)
        for index in range(8):
            (folder / f"{index}.jpg").write_bytes(picture(colour, size=(60 + index, 50), seed=index))
    (tmp_path / "our photos" / "🌹" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return tmp_path / "our photos"


def test_a_folder_of_photos_becomes_a_model_that_answers(photos: Path, tmp_path: Path, picture: Picture) -> None:
    torch.manual_seed(0)
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "weights.pth")
    run, repository = tmp_path / "run", tmp_path / "models"
    options = ["--strategy", "svm", "--backbone", "resnet18", "--weights", tmp_path / "weights.pth", *SMALL]
    options += ["--set", "data.near_duplicates=drop", "--set", "class_weights=balanced"]  # as checks.csv advises
    printed = do("train", "--data", photos, "--run", run, "--workers", 0, "--device", "cpu", *options)
    assert printed.strip() == str(run)
    assert "name: our-photos" in (run / "recipe.resolved.yaml").read_text("utf-8")
    assert "broken.jpg" in (run / "left_out.csv").read_text("utf-8")
    for name in ("checks.csv", "suspects.csv", "suspects.png"):
        assert (run / name).is_file()
    do("export", run)
    do("parity", run, "--photos", 2)
    do("publish", run, "--models", repository)
    for label, colour in COLOURS.items():
        (tmp_path / "new.jpg").write_bytes(picture(colour, seed=99))
        answer = do("classify", tmp_path / "new.jpg", "--models", repository, "--top-k", 1)
        assert label in answer


def test_a_folder_of_other_files_says_so_in_few_lines(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(40):
            (tmp_path / "photos" / label / f"{index}.txt").write_text(f"{label}{index}")
    arguments = ["train", "--data", str(tmp_path / "photos"), "--strategy", "scratch", "--run", str(tmp_path / "run")]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, PetalpawError)
    assert "no photo of class 'a' is left" in error.detail
    assert "and 60 more" in error.detail
    assert len(error.detail.splitlines()) < 40


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train"], "--data"),
        (["train", "flowers", "--data", ".", "--strategy", "svm"], "use --set"),
        (["train", "--data", ".", "--strategy", "scratch", "--weights", "w.pth"], "leave --weights"),
        (["train", "--resume", "run", "--strategy", "svm"], "resumed"),
        (["recipes", "show"], "--data"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], says: str) -> None:
    result = CliRunner(env={"COLUMNS": "300", "TERM": "dumb"}).invoke(app, arguments)
    assert result.exit_code == 2
    assert says in result.output
