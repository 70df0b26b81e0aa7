from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from inference.errors import DataInvalid, RecipeInvalid
from training import assess, finetune, session
from training.checkpoint import read
from training.dataset import open_photos
from training.export import export
from training.normalization import measure
from training.pixels import PixelStore
from training.recipe import Recipe
from training.run import Run, kept_module, read_record

Make = Callable[..., Recipe]
STAGE = [{"name": "s", "epochs": 1, "rates": {"head": 0.01}}]


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_deviation_are_numpys(make_recipe: Make, photos_root: Path, tmp_path: Path, channels: int) -> None:
    backbone = {"name": "mobilenet_v3_small", "weights": "none", "channels": channels}
    recipe = make_recipe(backbone=backbone, normalization={"source": "training"})
    with PixelStore(tmp_path / "pixels", 10**7) as store:
        photos = open_photos(recipe, photos_root, store)
        found = measure(photos)
        crops = [Image.fromarray(photos.crop(item)) for item in photos.splits["train"]]
    mode = "L" if channels == 1 else "RGB"
    values = np.stack([np.asarray(crop.convert(mode)) for crop in crops]).reshape(-1, channels) / 255
    assert found.mean == pytest.approx(values.mean(0).tolist(), rel=1e-9)
    assert found.std == pytest.approx(values.std(0).tolist(), rel=1e-9)


def test_a_run_carries_what_it_measured(
    make_recipe: Make,
    photos_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(assess, "_draw", lambda *_: None)
    recipe = make_recipe(normalization={"source": "training"}, stages=STAGE)
    finetune.train(recipe, photos_root, None, tmp_path / "run", device="cpu", workers=0)
    assert "training photos: mean 0." in capsys.readouterr().err
    record, again = read_record(tmp_path / "run")
    assert again == recipe
    assert record.normalization is not None
    module = kept_module(tmp_path / "run", recipe, record.labels, record.provenance.recipe_sha256)
    mean, std = torch.tensor(record.normalization.mean), torch.tensor(record.normalization.std)
    torch.testing.assert_close(module.shift.flatten(), mean / std)
    torch.testing.assert_close(module.scale.flatten(), 1 / (255 * std))
    assert torch.equal(read(tmp_path / "run" / "last.pt")["average"]["shift"], module.shift)
    # What is exported answers as the kept weights do.
    artifact = export(Run.open(tmp_path / "run"))
    runtime = onnxruntime.InferenceSession(artifact.folder / "model.onnx", providers=["CPUExecutionProvider"])
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    logits = runtime.run(["logits"], {"images": images.numpy()})[0]
    np.testing.assert_allclose(logits, module(images).numpy(), atol=1e-4)


def test_a_resumed_run_keeps_its_normalisation(
    make_recipe: Make, photos_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    recipe = make_recipe(normalization={"source": "training"}, stages=STAGE)
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "train_stage", stopped)
        with pytest.raises(KeyboardInterrupt):
            finetune.train(recipe, photos_root, None, tmp_path / "run", device="cpu", workers=0)
    begun = read(tmp_path / "run" / "last.pt")["module"]["shift"]
    monkeypatch.setattr(session, "measure", stopped)
    monkeypatch.setattr(finetune, "assess", lambda *_: None)
    finetune.train(recipe, photos_root, None, tmp_path / "run", device="cpu", workers=0, resume=True)
    assert torch.equal(read(tmp_path / "run" / "best.pt")["module"]["shift"], begun)
    assert begun.abs().max() > 0.1


def test_photos_of_one_colour_have_no_deviation(make_recipe: Make, tmp_path: Path) -> None:
    for label in ("left", "right"):
        (tmp_path / "data" / "shapes" / label).mkdir(parents=True)
        for index in range(6):
            Image.new("RGB", (40, 40 + index), (255, 7, 7)).save(tmp_path / f"data/shapes/{label}/{index}.png")
    recipe = make_recipe(normalization={"source": "training"}, stages=STAGE)
    with pytest.raises(DataInvalid, match=r"standard deviation is 0; look at the photos, or set normalization\.source"):
        finetune.train(recipe, tmp_path / "data", None, tmp_path / "run", device="cpu", workers=0)
    assert not (tmp_path / "run" / "run.json").exists()


def test_what_is_measured_is_not_given(make_recipe: Make) -> None:
    with pytest.raises(RecipeInvalid, match="measures mean and std; leave these out"):
        make_recipe(normalization={"source": "training", "mean": [0.5, 0.5, 0.5]})
