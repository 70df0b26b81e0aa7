import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.errors import RunInvalid
from training.checkpoint import Checkpoint, Identity, is_better, load, read, save, write_atomically

IDENTITY = Identity("sha256:" + "0" * 64, "resnet18", ["a", "b"], "sha256:" + "1" * 64)


def checkpoint(**changes: Any) -> Checkpoint:
    return Checkpoint(IDENTITY, **({"module": {"weight": torch.arange(4.0)}, "history": [{"epoch": 1}]} | changes))


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    saved = checkpoint(stage=1, stage_epoch=2, best={"validation_loss": 0.5}, scaler={"scale": 2.0})
    save(tmp_path / "last.pt", saved)
    loaded = load(tmp_path / "last.pt", IDENTITY)
    assert torch.equal(loaded.module.pop("weight"), torch.arange(4.0))
    saved.module = {}
    assert loaded == saved
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("backbone", "vgg16", "another backbone: it has 'resnet18', this run has 'vgg16'"),
        ("labels", ["b", "a"], "another class list"),
        ("recipe", "sha256:" + "2" * 64, "another recipe"),
        ("data", "sha256:" + "2" * 64, "other photos"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, key: str, value: Any, message: str) -> None:
    save(tmp_path / "last.pt", checkpoint())
    with pytest.raises(RunInvalid, match=message):
        load(tmp_path / "last.pt", replace(IDENTITY, **{key: value}))


def test_damaged_missing_and_foreign_files(tmp_path: Path) -> None:
    save(tmp_path / "whole.pt", checkpoint())
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"format_version": 99, "identity": {}}, tmp_path / "newer.pt")
    torch.save([1], tmp_path / "list.pt")
    for name, message in (
        ("cut", "damaged"),
        ("text", "damaged"),
        ("absent", "does not exist"),
        ("newer", "format version 99"),
        ("list", "format version None"),
    ):
        with pytest.raises(RunInvalid, match=message):
            read(tmp_path / f"{name}.pt")


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.json").touch()
    save(tmp_path / "last.pt", checkpoint())
    before = (tmp_path / "last.pt").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunInvalid, match=r"No space left on device.*make room and resume"):
        save(tmp_path / "last.pt", checkpoint(stage=5))
    assert (tmp_path / "last.pt").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "run.json"}


def test_torchs_own_words_for_a_full_disk_are_not_handed_on(tmp_path: Path) -> None:
    def full(file: Any) -> None:
        error = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 704 vs 598")
        error.__context__ = OSError(28, "No space left on device")
        raise error

    # Nothing was begun: there is no run to resume.
    with pytest.raises(
        RunInvalid, match=r"written \(\[Errno 28\] No space left on device\); make room and begin again"
    ):
        write_atomically(tmp_path / "last.pt", full)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_torchs_own_writer_on_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / ".last.pt.part").symlink_to("/dev/full")
    with pytest.raises(RunInvalid, match="could not be written"):
        save(tmp_path / "last.pt", checkpoint(module={"weight": torch.zeros(100_000)}))
    assert not list(tmp_path.iterdir())


def test_nothing_is_replaced_when_writing_fails_half_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")

    def half(file: Any) -> None:
        file.write(b"half")
        raise OSError(5, "Input/output error")

    with pytest.raises(RunInvalid):
        write_atomically(tmp_path / "file", half)
    assert (tmp_path / "file").read_text() == "before"


def test_which_epoch_is_better() -> None:
    best = {"validation_accuracy": 0.9, "calibrated_loss": 0.3}

    def better(metric: Any, accuracy: float, loss: float) -> bool:
        return is_better(metric, {"validation_accuracy": accuracy, "calibrated_loss": loss}, best)

    assert is_better("loss", best, None)
    assert [better("accuracy", *new) for new in ((0.91, 0.5), (0.9, 0.2), (0.9, 0.3), (0.8, 0.1))] == [
        True,
        True,
        False,
        False,
    ]
    assert [better("loss", *new) for new in ((0.8, 0.2), (0.95, 0.3), (0.95, float("nan")))] == [True, False, False]


def test_a_run_of_another_class_list_is_not_opened(finished: Path, tmp_path: Path) -> None:
    from training.run import Run

    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    text = (copy / "run.json").read_text().replace('"circles"', '"rings"')
    (copy / "run.json").write_text(text)
    with pytest.raises(RunInvalid, match="another recipe or class list"):
        Run.open(copy).module()
