import os
from collections.abc import Callable
from pathlib import Path

import pytest

from commands.options import StrategyOption
from inference.errors import DataInvalid, RecipeInvalid
from tests.training.conftest import files
from training.layout import recognise
from training.scan import scan_source
from training.sections import Source
from training.strategies import STRATEGIES, propose


@pytest.mark.parametrize(
    ("photos", "strategy"), [(2, "features"), (160, "features"), (169, "finetune"), (400, "finetune")]
)
def test_the_number_of_training_photos_chooses_the_strategy(tmp_path: Path, photos: int, strategy: str) -> None:
    proposal = propose(files(tmp_path / "My Pets!", cats=photos, dogs=photos))
    assert any(line.startswith(f"strategy {strategy}: ") for line in proposal.reasons)
    assert proposal.recipe.name == "my-pets"
    assert 3 <= len(proposal.reasons) <= 5
    assert len(proposal.recipe.stages) == (2 if strategy == "finetune" else 1)


def test_every_strategy_gives_a_recipe_that_can_be_run(tmp_path: Path) -> None:
    root = files(tmp_path, cats=9, dogs=9)
    assert tuple(option.value for option in StrategyOption) == STRATEGIES
    recipes = {strategy: propose(root, strategy, "resnet18").recipe for strategy in STRATEGIES}
    assert {strategy: recipe.stages[0].solver.kind for strategy, recipe in recipes.items()} == {
        "features": "gradient",
        "svm": "svm",
        "logistic": "logistic",
        "finetune": "gradient",
        "scratch": "gradient",
    }
    assert {strategy for strategy, recipe in recipes.items() if recipe.backbone.weights == "none"} == {"scratch"}
    assert all(recipe.backbone.name == "resnet18" for recipe in recipes.values())


def test_options_and_changes_are_taken(tmp_path: Path) -> None:
    recipe = propose(files(tmp_path, a=9, b=9), name="mine", changes=["stages.0.epochs=3", "seed=5"]).recipe
    assert (recipe.name, recipe.stages[0].epochs, recipe.seed) == ("mine", 3, 5)
    with pytest.raises(RecipeInvalid, match="no backbone is called 'resnet19'; did you mean `resnet18`"):
        propose(tmp_path, backbone="resnet19")
    with pytest.raises(RecipeInvalid, match="name: String should match pattern"):
        propose(tmp_path, name="My Pets")


def test_changes_are_of_one_recipe_only(tmp_path: Path) -> None:
    root = files(tmp_path, a=9, b=9)
    changed = propose(root, "features", changes=["stages.0.epochs=3", "stages.0.rates.head=0.5"]).recipe.stages[0]
    same = propose(root, "features").recipe.stages[0]
    assert (changed.epochs, same.epochs) == (3, 30)
    assert same.rates != changed.rates


def test_the_layout_may_be_changed_as_checks_advise(tmp_path: Path) -> None:
    root = files(tmp_path, red=9, green=9)
    proposal = propose(root, changes=["data.near_duplicates=drop", "data.classes=[red, green]"])
    assert (proposal.recipe.data.near_duplicates, proposal.recipe.data.classes) == ("drop", ("red", "green"))
    assert any(line.startswith("splits: train '.'") for line in proposal.reasons)


def test_small_folders_keep_a_photo_of_each_class_in_every_split(tmp_path: Path) -> None:
    small = propose(files(tmp_path / "small", a=2, b=40))
    assert small.recipe.data.test is None
    assert small.recipe.batch_size == 8
    assert propose(files(tmp_path / "tiny", a=2, b=2)).recipe.batch_size == 2
    assert propose(files(tmp_path / "more", a=30, b=40)).recipe.data.test is not None


@pytest.mark.parametrize("names", [("train", "val"), ("Training", "Valid", "testing"), ("train", "validation", "test")])
def test_split_folders_are_recognised(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        files(tmp_path / name, a=4, b=4)
    proposal = propose(tmp_path)
    data = proposal.recipe.data
    assert ("a folder `test` beside them" in proposal.reasons[1]) == (len(names) == 2)
    assert data.train.folder == names[0]
    assert data.validation.folder == names[1]
    assert (data.test and data.test.folder) == (names[2] if len(names) > 2 else None)


def test_a_train_folder_alone_gives_up_a_share_for_validation(tmp_path: Path) -> None:
    files(tmp_path / "train", a=10, b=10)
    files(tmp_path / "test", a=3, b=3)
    data = propose(tmp_path).recipe.data
    assert (data.validation.share, data.validation.of) == (0.2, "train")
    assert data.test is not None
    assert data.test.folder == "test"


def test_what_a_mac_leaves_in_a_zip_is_no_class(tmp_path: Path) -> None:
    (files(tmp_path, a=3, b=3) / "__MACOSX" / "a").mkdir(parents=True)
    assert set(recognise(tmp_path).train) == {"a", "b"}
    assert propose(tmp_path).recipe.data.train.folder == "."


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert set(recognise(files(tmp_path, train=3, bus=3)).train) == {"train", "bus"}


@pytest.mark.parametrize("label", ["two words", "蒲公英", "🌹"])
def test_a_folder_of_any_name_gives_a_model_name(tmp_path: Path, label: str) -> None:
    recipe = propose(files(tmp_path / label, **{label: 4, "other": 4})).recipe
    assert recipe.name == ("two-words" if label == "two words" else "classifier")
    assert label in recipe.title
    assert recipe.description == "Tells 2 classes apart."  # no label can break the model card's text


def bare(root: Path) -> None:
    for number in range(3):
        (root / f"{number}.jpg").write_text("x")


def outside(root: Path) -> None:
    files(root, a=4)
    (root / "b").symlink_to(files(root.parent / "elsewhere", b=4) / "b")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "holds 0 files and no folders; make one folder per class"),
        (bare, "holds 3 files and no folders; make one folder per class"),
        (lambda root: files(root, cats=5), "holds only 'cats'; make one folder per class"),
        (lambda root: files(root, cats=5, dogs=0), "class 'dogs' has no photos: its folder is empty"),
        (lambda root: files(root, cats=1, dogs=1), "class 'cats' has 1 photo, its 2 splits need one each"),
        (lambda root: files(root / "animals", cats=5, dogs=5), r"one folder 'animals'.* pass --data \S*animals"),
        (lambda root: files(root, train=3, val=3), "train, val in .* look like splits without training classes"),
        (
            lambda root: (files(root / "train", a=3, b=3), files(root / "val", a=3, b=3, c=3)),
            "data.validation: class 'c' is not among the training classes",
        ),
        (
            lambda root: files(root, **{"bus": 3, "car": 3, "train/steam": 3, "train/diesel": 3}),
            "'train' in .* looks like a split, so nothing would use bus, car beside it",
        ),
        (
            lambda root: files(root, **{"train/a": 3, "train/b": 3, "val/a": 3, "validation/a": 3, "extra/a": 3}),
            "nothing would use extra, val beside it; keep one folder per split",
        ),
        (lambda root: files(root, val=3, validation=3), "val, validation in .* look like splits without"),
        (outside, "b: the link leaves the data root"),
        (lambda root: root.rmdir(), "is no folder that can be read"),
    ],
)
def test_folders_that_cannot_be_trained_on(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    make(root)
    with pytest.raises(DataInvalid, match=message):
        propose(root)


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("the superuser reads every folder")
    root = files(tmp_path / "photos", a=3, b=3)
    root.chmod(0)
    with pytest.raises(DataInvalid, match="Permission denied"):
        propose(root)


def test_runs_and_models_among_the_photos_are_no_classes(tmp_path: Path) -> None:
    files(tmp_path, cats=4, dogs=4)
    for own in ("models/pets/1/manifest.json", "runs/pets/run.json", "old/run.json"):
        (tmp_path / own).parent.mkdir(parents=True)
        (tmp_path / own).write_text("{}")
    assert recognise(tmp_path).train == {"cats": 3, "dogs": 3}
    scan = scan_source(tmp_path.resolve(), Source(folder="."))
    assert list(scan.classes) == ["cats", "dogs"]
    assert [entry.path for entry in scan.left_out] == ["models", "old", "runs"]
