from collections.abc import Callable
from pathlib import Path

import pytest

from commands.outline import show_outline
from inference import torchrun
from inference.errors import RunInvalid
from training.compute import Compute
from training.feed import EVALUATION_BATCH
from training.outline import outline
from training.recipe import Recipe
from training.splits import count_photos, find_splits

Make = Callable[..., Recipe]


def test_the_outline_counts_what_the_network_has(make_recipe: Make) -> None:
    recipe = make_recipe(backbone={"name": "resnet18", "weights": "none"})
    plan = outline(recipe, {"train": 60, "validation": 12}, ("a", "b", "c"), Compute.plan("cpu", recipe))
    assert plan.parameters == 11_178_051  # 11,689,512 with ImageNet's 1,000 classes
    assert sum(layer.parameters for layer in plan.layers) == plan.parameters
    layers = {layer.name: layer for layer in plan.layers}
    assert layers["fc"].trained_in == ("head", "everything")
    assert layers["layer4.1"].trained_in == ("everything",)
    assert layers["layer4.1"].kind == "BasicBlock"
    head, everything = plan.stages
    assert (head.parameters, everything.parameters) == (1539, 11_178_051)
    # Weights, their gradients and the momentum of SGD alone are three copies; the average is a fourth.
    assert everything.memory > 4 * 4 * 11_178_051 > head.memory
    assert min(head.seconds, everything.seconds) > 0  # which is longer, a busy machine may turn round


def test_several_processes_are_not_measured(
    make_recipe: Make, photos_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchrun, "processes", lambda: 2)
    with pytest.raises(RunInvalid, match="start it without torchrun"):
        show_outline(make_recipe(), photos_root, None, "cpu")


def test_frozen_features_need_their_largest_layer_and_themselves(make_recipe: Make) -> None:
    recipe = make_recipe(backbone={"name": "resnet18", "weights": "none"}, precision="fp32")
    head = outline(recipe, {"train": 60, "validation": 12}, ("a", "b", "c"), Compute.plan("cpu", recipe)).stages[0]
    weights = 4 * (2 * 11_178_051 + 2 * 1539)  # with the average; the head's gradients and momentum
    largest = 2 * 64 * 16 * 16 * 4  # the first batch norm's input and output
    assert head.memory == weights + EVALUATION_BATCH * largest + (60 + 12) * 512 * 4


def test_memory_grows_with_the_batch(make_recipe: Make) -> None:
    def memory(size: int) -> int:
        recipe = make_recipe(batch_size=size, precision="fp32")
        return outline(recipe, {"train": 60}, ("a", "b"), Compute.plan("cpu", recipe)).stages[1].memory

    assert memory(64) - memory(32) == pytest.approx(memory(96) - memory(64), rel=0.01)
    assert memory(64) > memory(32)


def test_photos_are_counted_as_they_will_be_split(make_recipe: Make, photos_root: Path) -> None:
    recipe = make_recipe()
    counts, labels = count_photos(recipe.data, photos_root)
    splits, same, _ = find_splits(recipe.data, photos_root, recipe.seed)
    assert labels == same
    assert counts == {split: len(items) for split, items in splits.items()}
