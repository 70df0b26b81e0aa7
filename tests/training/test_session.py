import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inference.errors import DataInvalid
from inference.manifest import digest_of
from training import finetune
from training.finetune import train
from training.pixels import PixelStore
from training.recipe import Recipe
from training.run import read_record
from training.session import check_shares

Make = Callable[..., Recipe]


class Stopped(Exception):
    pass


def test_kept_pixels_leave_room_for_checkpoints(
    make_recipe: Make, photos_root: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 2 * (finished / "last.pt").stat().st_size + (finished / "best.pt").stat().st_size

    def opened(recipe: Recipe, root: Path, store: PixelStore) -> None:
        assert needed < store.spared < 3 * needed
        raise Stopped

    monkeypatch.setattr(finetune, "open_photos", opened)
    with pytest.raises(Stopped):
        train(make_recipe(), photos_root, None, tmp_path / "run", device="cpu", workers=0)


def test_a_run_of_a_version_that_knew_fewer_keys_is_gone_on_with(
    photos_root: Path, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    text = (folder / "recipe.resolved.yaml").read_text()
    older = text.replace("clip_norm: null\n", "")
    assert older != text
    (folder / "recipe.resolved.yaml").write_text(older)
    old, new = digest_of(text.encode()), digest_of(older.encode())
    (folder / "run.json").write_text((folder / "run.json").read_text().replace(old, new))
    for name in ("last.pt", "best.pt"):
        content = torch.load(folder / name, weights_only=True)
        content["identity"]["recipe"] = new
        torch.save(content, folder / name)
    recipe = read_record(folder)[1]
    result = train(recipe, photos_root, None, folder, resume=True, device="cpu", workers=0)
    assert result.status == "finished"


def test_batch_norm_needs_two_photos_of_every_share(make_recipe: Make) -> None:
    processes: Any = SimpleNamespace(count=2)

    def check(**changes: Any) -> None:
        photos: Any = SimpleNamespace(
            recipe=make_recipe(batch_size=3, **changes), splits={"train": range(9), "validation": range(4)}
        )
        check_shares(photos, processes)

    with pytest.raises(DataInvalid, match=r"batches of 3 photos, 2 for each, and splits of 4; start 1 at most"):
        check()
    for change in ({"trains": "head"}, {"frozen_statistics": True}):
        check(stages=[{"name": "s", "epochs": 1, "rates": {"head": 0.1}} | change])
