import re
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision import models

from inference.errors import RunInvalid
from inference.manifest import file_entry
from training.backbones import Normalized, build
from training.checkpoint import Checkpoint, Identity, save
from training.recipe import Recipe
from training.weights import fill, read_weights

Make = Callable[..., Recipe]


@pytest.fixture
def recipe(make_recipe: Make) -> Recipe:
    return make_recipe()


@pytest.fixture
def module(recipe: Recipe) -> Normalized:
    return build(recipe, classes=3)


def test_every_key_that_was_not_filled_is_named(tmp_path: Path, recipe: Recipe, module: Normalized) -> None:
    state = models.mobilenet_v3_small().state_dict()
    del state["features.0.0.weight"]
    state["extra.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    filled = fill(module, read_weights(recipe, tmp_path / "w.pth"))
    assert filled.missing == ("features.0.0",)
    assert filled.unexpected == ("extra",)
    assert [entry.split()[0] for entry in filled.wrong_shape] == ["classifier.3.weight", "classifier.3.bias"]
    assert filled.filled == len(module.network.state_dict()) - 3
    assert filled.sha256 == file_entry(tmp_path / "w.pth").sha256
    assert all(key in str(filled) for key in ("features.0.0", "extra", "(1000, 1024) for (3, 1024)"))
    torch.testing.assert_close(
        module.network.state_dict()["features.1.block.0.0.weight"], state["features.1.block.0.0.weight"]
    )


@pytest.mark.parametrize("wrap", ["state_dict", "model"])
def test_wrapped_and_parallel_state_dicts(tmp_path: Path, recipe: Recipe, module: Normalized, wrap: str) -> None:
    state = {f"module.{key}": value for key, value in module.network.state_dict().items()}
    torch.save({wrap: state, "epoch": 3}, tmp_path / "w.pth")
    assert fill(module, read_weights(recipe, tmp_path / "w.pth")).missing == ()


class Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("unpickled",))


def test_files_that_hold_no_weights(
    tmp_path: Path, recipe: Recipe, module: Normalized, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (("code", Dangerous()), ("list", [1, 2]), ("mixed", {"a": 1})):
        torch.save(content, tmp_path / name)
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").touch()
    for name in ("code", "list", "mixed", "text", "empty", "absent"):
        with pytest.raises(RunInvalid, match=name):
            read_weights(recipe, tmp_path / name)
    with pytest.raises(RunInvalid) as told:
        read_weights(recipe, tmp_path / "code")
    assert "weights_only" not in str(told.value)  # torch would have it unpickled all the same
    assert "unpickled" not in capsys.readouterr().out


def test_a_runs_own_checkpoint_is_to_be_resumed(tmp_path: Path, recipe: Recipe) -> None:
    digest = "sha256:" + 64 * "0"
    save(tmp_path / "best.pt", Checkpoint(Identity(digest, "mobilenet_v2", ["cats", "dogs"], digest)))
    with pytest.raises(RunInvalid, match=f"checkpoint of a run; go on with that run by --resume {tmp_path}"):
        read_weights(recipe, tmp_path / "best.pt")


def test_another_networks_weights_are_refused(tmp_path: Path, recipe: Recipe, module: Normalized) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(RunInvalid, match="none of the 1 tensors"):
        fill(module, read_weights(recipe, tmp_path / "w.pth"))


def test_weights_that_lack_layers_are_refused_unless_the_recipe_wants_them_fresh(
    tmp_path: Path, make_recipe: Make
) -> None:
    torch.save(models.resnet18().state_dict(), tmp_path / "r18.pth")
    lacking = ["layer1.2", "layer2.2", "layer2.3", *(f"layer3.{block}" for block in range(2, 6)), "layer4.2"]
    with pytest.raises(RunInvalid, match=f"does not fill resnet34: it lacks {', '.join(lacking)}; choose"):
        read_weights(make_recipe(backbone={"name": "resnet34"}), tmp_path / "r18.pth")  # no photo is needed for that
    recipe = make_recipe(backbone={"name": "resnet34", "fresh": lacking})
    assert fill(build(recipe, classes=3), read_weights(recipe, tmp_path / "r18.pth")).missing == ()


def test_published_densenets_fill_theirs(tmp_path: Path, make_recipe: Make) -> None:
    state = {re.sub(r"(norm|conv)([12]\.)", r"\1.\2", key): v for key, v in models.densenet121().state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save(state, tmp_path / "w.pth")
    recipe = make_recipe(backbone={"name": "densenet121"})
    filled = fill(build(recipe, classes=3), read_weights(recipe, tmp_path / "w.pth"))
    assert (filled.missing, filled.unexpected) == ((), ())


def test_auxiliary_outputs_may_be_missing(tmp_path: Path, make_recipe: Make) -> None:
    state = models.googlenet(aux_logits=False, init_weights=False).state_dict()
    torch.save(state, tmp_path / "w.pth")
    recipe = make_recipe(backbone={"name": "googlenet"})
    assert fill(build(recipe, classes=3), read_weights(recipe, tmp_path / "w.pth")).missing == ("aux1", "aux2")


def test_no_network_for_named_weights(make_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(backbone={"name": "mobilenet_v3_small"})

    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(models, "get_model", offline)
    with pytest.raises(RunInvalid, match="pass a state dict with --weights FILE"):
        read_weights(recipe, None)
