"""What the documentation says against what the code does."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from inference import errors
from inference.repository import Repository

DOCS = Path(__file__).parents[1] / "docs"


def _leaves(kind: type[errors.PetalpawError]) -> list[type[errors.PetalpawError]]:
    """Those with a code of their own, in the order of the tree."""
    own = [kind] if kind is not errors.PetalpawError and "code" in vars(kind) else []
    return own + [leaf for child in kind.__subclasses__() for leaf in _leaves(child)]


def test_the_errors_page_lists_every_code_with_its_status() -> None:
    written = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", (DOCS / "errors.md").read_text("utf-8"), re.MULTILINE))
    assert written == {leaf.code: str(leaf.status) for leaf in _leaves(errors.PetalpawError)}


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"^\W+(\w+) +(\w+) +(\d{3})$", errors.__doc__ or "", re.MULTILINE)
    assert drawn == [(leaf.__name__, leaf.code, str(leaf.status)) for leaf in _leaves(errors.PetalpawError)]


def test_codes_are_unique() -> None:
    codes = [leaf.code for leaf in _leaves(errors.PetalpawError)]
    assert len(codes) == len(set(codes))


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a recipe that holds a value, with its default as Python writes it."""
    for name, entry in model.model_fields.items():
        sections = _models(entry.annotation)
        many = "[]" if sections and "tuple" in str(entry.annotation) else ""
        for section in sections:
            yield from _keys(section, f"{prefix}{name}{many}.")
        if not sections:
            yield f"{prefix}{name}", "required" if entry.is_required() else repr(entry.default)


def test_results_that_are_spoken_of_are_there() -> None:
    root = DOCS.parent
    files = [*DOCS.glob("*.md"), *root.glob("*.md"), *(root / "training").rglob("*.py"), *root.glob("benchmarks/*")]
    named = {
        name
        for path in files
        if path.is_file()
        for name in re.findall(r"results/([\w-]+\.\w+)", path.read_text("utf-8"))
    }
    assert named
    assert named <= {path.name for path in (root / "benchmarks" / "results").iterdir()}


def test_the_training_page_lists_every_recipe_key_with_its_default() -> None:
    from training.recipe import Recipe

    written = re.findall(r"^\| `([\w.\[\]]+)` \| (.+?) \|", (DOCS / "training.md").read_text("utf-8"), re.MULTILINE)
    keys = [
        row for row in written if row[0].rpartition(".")[2] not in ("yaml", "json", "csv", "png", "pt", "md", "html")
    ]
    assert keys == list(_keys(Recipe))


def test_the_readme_has_the_shipped_models_figures_and_digest() -> None:
    root = DOCS.parent
    readme = (root / "README.md").read_text("utf-8")
    percents = r"([\d.]+) % of (\d+) \(([\d.]+)–([\d.]+) %\)"
    rows = re.findall(rf"^\| `(\w+)` \| (.+?) \| .* \| {percents} \| {percents} \|$", readme, re.MULTILINE)
    shipped = Repository(root / "models").latest()
    assert [row[0] for row in rows] == [artifact.name for artifact in shipped]
    for artifact, row in zip(shipped, rows, strict=True):
        assert row[1] == ", ".join(artifact.manifest.labels)
        figures = artifact.manifest.metrics
        assert figures is not None
        measured = [100 * share for share in (figures.accuracy, figures.accuracy_low, figures.accuracy_high)]
        assert [float(row[i]) for i in (2, 4, 5)] == pytest.approx(measured, abs=0.051)
        assert int(row[3]) == figures.images
        card = (artifact.folder / "README.md").read_text("utf-8")
        said = re.search(r"On the (\d+) test photos .*: ([\d.]+)% \(95 % interval ([\d.]+)% to ([\d.]+)%\)", card)
        assert said is not None
        assert int(row[7]) == int(said[1])
        assert [float(row[i]) for i in (6, 8, 9)] == pytest.approx(
            [float(each) for each in said.groups()[1:]], abs=0.051
        )
    assert f'"digest":"{shipped[0].digest}"' in readme


def test_pages_that_are_linked_are_there() -> None:
    for page in (DOCS.parent / "README.md", *DOCS.glob("*.md"), DOCS.parent / "benchmarks" / "README.md"):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
