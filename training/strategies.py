"""A recipe for a folder of photos: which of the transfer-learning strategies, and with what settings.

    features   the backbone is frozen, a linear head is trained on its features, computed once
    svm        the same features, the head solved as a linear SVM
    logistic   the same features, the head solved as a logistic regression
    finetune   the head first, then every weight, gently
    scratch    every weight from random numbers, for photos that are like nothing in ImageNet

The rule: with fewer than 100 training photos per class, `features`, since few photos cannot move millions of weights
without being learnt by heart; from there on `finetune`. The other three are taken when asked for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from training.layout import Layout, recognise
from training.recipe import Recipe, recipe_of

Strategy = Literal["features", "svm", "logistic", "finetune", "scratch"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

ENOUGH = 100
"""Training photos per class from which fine-tuning is chosen."""

BACKBONE = "mobilenet_v2"


@dataclass(frozen=True)
class Proposal:
    """A recipe, and in a few lines why it is that one."""

    recipe: Recipe
    reasons: tuple[str, ...]


def propose(
    root: Path,
    strategy: Strategy | None = None,
    backbone: str | None = None,
    name: str | None = None,
    changes: Sequence[str] = (),
) -> Proposal:
    """The recipe for the photos under a folder; `changes` are laid over it as over a recipe file.

    Raises DataInvalid where the folder cannot be trained on, RecipeInvalid for an unknown backbone or a wrong change.
    """
    layout = recognise(root)
    backbone = backbone or BACKBONE
    chosen: Strategy = strategy or ("features" if layout.per_class < ENOUGH else "finetune")
    side = _side(backbone)
    content = {
        "name": name or _name_of(root),
        "title": f"{root.resolve().name or 'Photos'}: {len(layout.train)} classes",
        "description": f"Tells {len(layout.train)} classes apart.",
        "data": layout.data,
        "backbone": {"name": backbone, "weights": "none" if chosen == "scratch" else "imagenet"},
        "preprocessing": {"resize": side * 8 // 7, "crop": side},
        "stages": _STAGES[chosen],
        "augmentation": {"size": side, **({"jitter": _JITTER} if chosen in ("finetune", "scratch") else {})},
        "batch_size": _batch_size(layout),
        "selection": {"metric": "loss"},
        **_SETTINGS[chosen],
    }
    recipe = recipe_of(content, f"the recipe for {root}", root, changes)
    return Proposal(recipe, _reasons(root, layout, recipe, chosen, strategy is None))


_JITTER = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}
_HEAD = {
    "name": "head",
    "epochs": 30,
    "trains": "head",
    "cached_features": True,
    "rates": {"head": 0.003},
    "optimizer": {"kind": "adamw", "weight_decay": 0.01},
}
_STAGES: dict[Strategy, list[dict[str, Any]]] = {
    "features": [_HEAD],
    "svm": [{"name": "svm", "epochs": 1, "trains": "head", "cached_features": True, "solver": {"kind": "svm"}}],
    "logistic": [
        {"name": "logistic", "epochs": 1, "trains": "head", "cached_features": True, "solver": {"kind": "logistic"}}
    ],
    "finetune": [
        _HEAD | {"epochs": 5},
        {
            "name": "everything",
            "epochs": 8,
            # ImageNet's statistics are better than those of a few hundred batches.
            "frozen_statistics": True,
            "rates": {"head": 0.003, "backbone": 0.001},
            "schedule": {"warm_up": 0.2},
        },
    ],
    "scratch": [
        {
            "name": "everything",
            "epochs": 60,
            "rates": {"head": 0.001},
            "optimizer": {"kind": "adamw", "weight_decay": 0.05},
            "schedule": {"warm_up": 3.0},
        }
    ],
}
_SETTINGS: dict[Strategy, dict[str, Any]] = {
    "features": {},
    # A solution is exact: so should its features be.
    "svm": {"precision": "fp32"},
    "logistic": {"precision": "fp32"},
    "finetune": {"label_smoothing": 0.1, "average": 0.98, "clip_norm": 5.0},
    "scratch": {"label_smoothing": 0.1, "average": 0.99, "clip_norm": 5.0},
}


def _reasons(root: Path, layout: Layout, recipe: Recipe, strategy: Strategy, by_rule: bool) -> tuple[str, ...]:
    label, count = layout.smallest
    why = {
        "features": f"fewer than {ENOUGH} are too few to move the backbone's weights",
        "finetune": f"{ENOUGH} or more are enough to adapt every weight",
    }
    reason = f"{why[strategy]}; choose another with --strategy" if by_rule else "as you asked"
    stages = ", ".join(f"{stage.name} {stage.epochs}" for stage in recipe.stages)
    return (
        f"photos in {root}: {len(layout.train)} classes, about {layout.per_class:.0f} training photos per class; "
        f"the smallest is {label!r} with {count}",
        f"splits: {layout}",
        f"strategy {strategy}: {reason}",
        f"backbone {recipe.backbone.name}, weights {recipe.backbone.weights}, {recipe.preprocessing.crop} pixels, "
        f"batches of {recipe.batch_size}, epochs: {stages}",
        f"the model's name is {recipe.name}; to change more, start from `petalpaw recipes show --data {root}`",
    )


def _name_of(root: Path) -> str:
    """A valid model name from a folder's: what remains of it in a-z, 0-9, - and _."""
    name = re.sub(r"[^a-z0-9_]+", "-", root.resolve().name.lower()).strip("-_")[:64]
    return name or "classifier"


def _side(backbone: str) -> int:
    """The side in pixels that the backbone was made for."""
    # Imported here: torch takes seconds.
    from training.backbones import backbone_facts, backbone_names

    # An unknown name is the recipe check's to refuse.
    return (backbone_facts(backbone).native_size or 224) if backbone in backbone_names() else 224


def _batch_size(layout: Layout) -> int:
    """32, or less where an epoch would have fewer than four steps."""
    return max(2, min(32, sum(layout.train.values()) // 4))
