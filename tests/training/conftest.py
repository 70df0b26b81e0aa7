"""Photos of coloured shapes, a recipe small enough to train on them in seconds, and one finished run."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image, ImageDraw

from training.finetune import train
from training.recipe import Recipe, load_recipe

CLASSES = {"circles": (200, 40, 40), "squares": (40, 170, 60), "triangles": (50, 60, 200)}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from threads, and lose much where the cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def files(folder: Path, **counts: int) -> Path:
    """Class folders of files that hold their own names: nothing here is decoded."""
    for label, count in counts.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / label / f"{number}.jpg").write_text(f"{label} {number}")
    return folder


def draw_shape(label: str, seed: int) -> Image.Image:
    dice = random.Random(f"{label}{seed}")
    image = Image.new("RGB", (dice.randrange(60, 90), dice.randrange(60, 90)), (dice.randrange(180, 255),) * 3)
    x, y, side = dice.randrange(5, 20), dice.randrange(5, 20), dice.randrange(25, 38)
    draw, colour = ImageDraw.Draw(image), CLASSES[label]
    if label == "circles":
        draw.ellipse((x, y, x + side, y + side), fill=colour)
    elif label == "squares":
        draw.rectangle((x, y, x + side, y + side), fill=colour)
    else:
        draw.polygon([(x, y + side), (x + side, y + side), (x + side // 2, y)], fill=colour)
    return image


@pytest.fixture(scope="session")
def make_photos() -> Callable[..., Path]:
    """A maker of class folders: make_photos(root, per_class=12)."""

    def make(folder: Path, per_class: int = 12, labels: tuple[str, ...] = tuple(CLASSES)) -> Path:
        for label in labels:
            (folder / label).mkdir(parents=True, exist_ok=True)
            for number in range(per_class):
                draw_shape(label, number).save(folder / label / f"{label}-{number}.png")
        return folder

    return make


@pytest.fixture(scope="session")
def photos_root(tmp_path_factory: pytest.TempPathFactory, make_photos: Callable[..., Path]) -> Path:
    """A data root with `shapes`, 12 photos of each of three classes. Read-only."""
    root = tmp_path_factory.mktemp("data")
    make_photos(root / "shapes")
    return root


def small_recipe() -> dict[str, Any]:
    return {
        "name": "shapes",
        "title": "Three shapes",
        "description": "Tells circles, squares and triangles apart.",
        "data": {
            "train": {"folder": "shapes"},
            "validation": {"share": 0.2, "of": "train"},
            "test": {"share": 0.2, "of": "train"},
        },
        "backbone": {"name": "mobilenet_v3_small", "weights": "none"},
        "preprocessing": {"resize": 40, "crop": 32},
        "stages": [
            {"name": "head", "epochs": 1, "trains": "head", "rates": {"head": 0.01}, "cached_features": True},
            {"name": "everything", "epochs": 2, "rates": {"head": 0.02, "backbone": 0.01}},
        ],
        "augmentation": {"size": 32, "jitter": {"brightness": 0.1}},
        "batch_size": 6,
        "average": 0.9,
        "label_smoothing": 0.1,
        "seed": 3,
    }


@pytest.fixture
def content() -> dict[str, Any]:
    """The content of a small recipe, to be changed."""
    return small_recipe()


@pytest.fixture
def recipe_file(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """A writer of recipe files."""

    def write(content: dict[str, Any]) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        return path

    return write


@pytest.fixture
def make_recipe(recipe_file: Callable[[dict[str, Any]], Path]) -> Callable[..., Recipe]:
    """A maker of small recipes: make_recipe(batch_size=4)."""
    return lambda **changes: load_recipe(recipe_file(small_recipe() | changes))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, photos_root: Path) -> Path:
    """The folder of a finished run of the small recipe. Read-only."""
    folder = tmp_path_factory.mktemp("runs")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(small_recipe()), encoding="utf-8")
    train(load_recipe(path, photos_root), photos_root, None, folder / "shapes", device="cpu", workers=0)
    return folder / "shapes"
