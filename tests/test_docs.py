"""What the documentation says against what the code does."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from inference import errors

DOCS = Path(__file__).parents[1] / "docs"


def _leaves(kind: type[errors.PetalpawError]) -> list[type[errors.PetalpawError]]:
    children = kind.__subclasses__()
    return [leaf for child in children for leaf in _leaves(child)] if children else [kind]


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
