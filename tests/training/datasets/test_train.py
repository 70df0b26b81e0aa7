"""A recipe that names public sets brings them along."""

from pathlib import Path

import pytest
import typer

from commands.training import _named_sets
from inference.errors import DataInvalid, RecipeInvalid
from tests.training.datasets.conftest import put
from training.datasets import store
from training.datasets.catalog import CATALOG
from training.recipe import load_recipe

PLAIN = ["backbone.weights=none"]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What is asked to be fetched, in an empty folder."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "fetch_all", lambda names, _: calls.append(tuple(names)))
    return calls


def test_missing_sets_are_fetched_but_not_for_a_dry_run(asked: list[tuple[str, ...]]) -> None:
    assert _named_sets("flowers", PLAIN, fetching=False) == Path("data")
    assert asked == []
    assert _named_sets("flowers", PLAIN, fetching=True) == Path("data")
    assert asked == [("flowers",)]


def test_sets_that_are_there_are_not_fetched(asked: list[tuple[str, ...]], tmp_path: Path) -> None:
    for label in CATALOG["flowers"].classes:
        put(tmp_path / "data/flowers/train" / label, {f"{number}.jpg": b"x" for number in range(3)})
    _named_sets("flowers", PLAIN, fetching=True)
    assert asked == []


def test_a_wrong_recipe_ends_before_a_download(asked: list[tuple[str, ...]]) -> None:
    with pytest.raises(RecipeInvalid):
        _named_sets("flowers", ["backbone.name=nope"], fetching=True)
    with pytest.raises(RecipeInvalid, match="did you mean `flowers`"):
        _named_sets("flowers", ["data.sets=[flower]"], fetching=True)
    with pytest.raises(typer.BadParameter, match="--data"):
        _named_sets("flowers", ["data.sets=[]"], fetching=True)
    assert asked == []


def test_a_data_folder_without_the_set_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=f"run `petalpaw data fetch flowers --to {tmp_path}`"):
        load_recipe("flowers", tmp_path, PLAIN)
    with pytest.raises(DataInvalid, match="run `petalpaw data fetch flowers --to"):
        load_recipe("flowers", tmp_path / "nowhere", PLAIN)
