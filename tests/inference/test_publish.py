"""Publishing is all or nothing, and only for what parity has proven."""

import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest

from inference.errors import DigestMismatch, PublishRefused
from inference.manifest import MANIFEST, PARITY, Manifest
from inference.repository import Repository

PUBLISHER = Path(__file__).with_name("publisher.py")
Python = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def models(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


def edit_parity(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / PARITY).read_text())
    (folder / PARITY).write_text(json.dumps(content | changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_publishes_the_next_version(models: Repository, exported: Path) -> None:
    before = contents(exported)
    first, second = models.publish(exported), models.publish(exported)
    assert (first.version, second.version) == ("1", "2")
    assert first.folder == models.root / "colours" / "1"
    assert contents(exported) == before
    assert {path.name for path in first.folder.iterdir()} == {MANIFEST, PARITY, "README.md", "model.onnx"}
    assert set(first.manifest.files) == {PARITY, "README.md", "model.onnx"}
    assert first.manifest.parity[0].runtime == "onnx"
    assert [path.name for path in models.root.joinpath("colours").iterdir() if path.name.startswith(".")] == []
    original = Manifest.model_validate_json(before[MANIFEST])
    kept = original.model_dump(exclude={"version", "parity", "files"})
    assert first.manifest.model_dump(exclude={"version", "parity", "files"}) == kept


def test_version_after_the_highest(models: Repository, exported: Path) -> None:
    shutil.copytree(models.publish(exported).folder, models.root / "colours" / "11")
    assert models.publish(exported).version == "12"


def test_files_that_the_manifest_does_not_name_stay_behind(models: Repository, exported: Path) -> None:
    (exported / "checkpoint.pt").write_bytes(b"secret")
    assert not (models.publish(exported).folder / "checkpoint.pt").exists()


def test_parity_missing(models: Repository, exported: Path) -> None:
    (exported / PARITY).unlink()
    with pytest.raises(PublishRefused, match=r"parity\.json is missing; run `petalpaw parity`"):
        models.publish(exported)
    assert not models.root.exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "Invalid JSON"), ("{", "Invalid JSON"), ("[]", "whole: "), ('{"passed": true}', "figures: Field required")],
)
def test_parity_unreadable(models: Repository, exported: Path, text: str, problem: str) -> None:
    (exported / PARITY).write_text(text)
    with pytest.raises(PublishRefused, match=rf"is not a parity report \(.*{problem}.*run `petalpaw parity` again"):
        models.publish(exported)


def test_parity_failed(models: Repository, exported: Path) -> None:
    edit_parity(exported, passed=False, problems=["onnx on cpu: 3.1 apart", "labels differ"])
    with pytest.raises(PublishRefused, match=r"says that parity failed: onnx on cpu: 3\.1 apart; labels differ"):
        models.publish(exported)


def test_parity_of_other_files(models: Repository, exported: Path) -> None:
    edit_parity(exported, files={"model.onnx": "sha256:" + "0" * 64})
    with pytest.raises(PublishRefused, match="speaks of other files than the artifact holds"):
        models.publish(exported)
    edit_parity(exported, files={"model.int8.onnx": "sha256:" + "0" * 64})
    with pytest.raises(PublishRefused, match="speaks of other files"):
        models.publish(exported)


def test_parity_gone_stale(models: Repository, exported: Path, replace: Callable[..., Path]) -> None:
    replace(exported, "model.onnx", (exported / "model.onnx").read_bytes() + b"\0")
    with pytest.raises(PublishRefused, match="speaks of other files"):
        models.publish(exported)


def test_parity_does_not_cover_a_variant(models: Repository, exported: Path, replace: Callable[..., Path]) -> None:
    replace(exported, "model.int4.onnx", b"unproven")
    with pytest.raises(PublishRefused, match=r"does not cover model\.int4\.onnx"):
        models.publish(exported)


def test_spoiled_source(models: Repository, exported: Path) -> None:
    (exported / "model.onnx").write_bytes(b"other")
    with pytest.raises(DigestMismatch):
        models.publish(exported)
    assert not models.root.exists()


def test_root_is_a_file(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("not a folder")
    with pytest.raises(PublishRefused, match=r"could not be written .*nothing was published|cannot be listed"):
        Repository(tmp_path / "models").publish(exported)


def test_full_disk(models: Repository, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.publish(exported)

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("inference.repository.sync", full)
    with pytest.raises(PublishRefused, match=r"No space left on device.*nothing was published"):
        models.publish(exported)
    assert [path.name for path in (models.root / "colours").iterdir()] == ["1"]


def test_version_that_a_neighbour_took_is_not_replaced(
    models: Repository, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = contents(models.publish(exported).folder)
    monkeypatch.setattr(Repository, "versions", lambda *_: [])
    with pytest.raises(PublishRefused, match="nothing was published"):
        models.publish(exported)
    assert contents(models.root / "colours" / "1") == taken


@pytest.mark.parametrize("step", [0, 2, 3, 4, 8, 9, 10])
def test_kill_9_leaves_all_or_nothing(models: Repository, exported: Path, python: Python, step: int) -> None:
    done = python(PUBLISHER, models.root, exported, "kill", str(step))
    assert done.returncode == -signal.SIGKILL, done.stderr
    # Steps: three copies, the manifest, a sync for each file and the folder, the rename, a sync of the model's folder.
    published = step == 10
    assert models.versions("colours") == (["1"] if published else [])
    assert models.publish(exported).version == ("2" if published else "1")


def test_publisher_counts_every_step(models: Repository, exported: Path, python: Python) -> None:
    done = python(PUBLISHER, models.root, exported, "kill", "11")
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_what_a_killed_publication_left_goes_with_a_later_one(
    models: Repository, exported: Path, python: Python
) -> None:
    python(PUBLISHER, models.root, exported, "kill", "3")
    (left,) = (models.root / "colours").glob(".publish-*")
    models.publish(exported)
    assert left.exists()  # it might be a neighbour's, who is at it now
    os.utime(left, (0, 0))
    models.publish(exported)
    assert not left.exists()


def test_neighbours_publish_at_once(models: Repository, exported: Path, python: Python) -> None:
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: python(PUBLISHER, models.root, exported, "times", "8"), range(3)))
    assert [run.stderr for run in runs] == [""] * 3
    outcomes = [outcome for run in runs for outcome in json.loads(run.stdout)]
    won = sorted(int(outcome) for outcome in outcomes if outcome.isdigit())
    assert won == list(range(1, len(won) + 1))
    assert len(won) >= 8
    assert all("nothing was published" in outcome for outcome in outcomes if not outcome.isdigit())
    assert sorted(path.name for path in (models.root / "colours").iterdir()) == sorted(map(str, won))
    for version in won:
        models.open("colours", str(version))
