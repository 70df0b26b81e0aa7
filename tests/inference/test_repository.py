"""Finding models: the latest by number, never one that is hidden, half there or elsewhere."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.errors import DigestMismatch, ManifestInvalid, ModelUnknown
from inference.repository import Artifact, Repository


@pytest.fixture
def own(repository: Repository, tmp_path: Path) -> Repository:
    """A repository of its own with colours/1 and tones/1, to be spoiled."""
    shutil.copytree(repository.root, tmp_path / "models")
    return Repository(tmp_path / "models")


def add_version(own: Repository, edit: Callable[..., Path], version: str) -> Path:
    folder = own.root / "colours" / version
    shutil.copytree(own.root / "colours" / "1", folder)
    return edit(folder, lambda content: content.update(version=version))


def test_lists_and_opens(repository: Repository) -> None:
    assert repository.names() == ["colours", "tones"]
    assert repository.versions("colours") == ["1"]
    assert repository.versions("nothing") == []
    artifact = repository.open("colours")
    assert (artifact.name, artifact.version) == ("colours", "1")
    assert artifact == repository.open("colours", "1")
    assert [each.name for each in repository.latest()] == ["colours", "tones"]
    assert artifact.digest != repository.open("tones").digest


def test_latest_is_by_number(own: Repository, edit: Callable[..., Path]) -> None:
    for version in ("10", "9", "2"):
        add_version(own, edit, version)
    assert own.versions("colours") == ["1", "2", "9", "10"]
    assert own.open("colours").version == "10"
    assert own.open("colours", "9").version == "9"


def test_what_is_no_model_is_passed_over(own: Repository) -> None:
    for name in (".hidden", ".publish-0a1b2c3d", "Colours", "a b", "colours~"):
        shutil.copytree(own.root / "colours", own.root / name)
    for version in (".publish-0a1b2c3d", "0", "01", "v2", "2.0", "2~", "1234567890", "٢"):
        shutil.copytree(own.root / "colours" / "1", own.root / "colours" / version)
    (own.root / "README.md").write_text("models")
    (own.root / "colours" / "3").write_text("a file")
    (own.root / "empty").mkdir()
    assert own.names() == ["colours", "tones"]
    assert own.versions("colours") == ["1"]


@pytest.mark.parametrize(
    "name", ["nothing", "../x", "..", ".", "", "/etc", "colours/1", "COLOURS", "colours\n", "a" * 65]
)
def test_unknown_names(repository: Repository, name: str) -> None:
    with pytest.raises(ModelUnknown, match=r"there is no model .*; known: colours/1, tones/1"):
        repository.open(name)


@pytest.mark.parametrize("version", ["2", "0", "latest", "../../tones/1", ".", "", "1/", "01"])
def test_unknown_versions(repository: Repository, version: str) -> None:
    with pytest.raises(ModelUnknown, match="there is no model 'colours/"):
        repository.open("colours", version)


def test_names_never_lead_out(own: Repository) -> None:
    shutil.copytree(own.root / "colours", own.root.parent / "x")
    with pytest.raises(ModelUnknown):
        own.open("../x")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match=r"holds no model; publish one with `petalpaw publish RUN`"):
        Repository(tmp_path).latest()
    with pytest.raises(ModelUnknown, match="known: none"):
        Repository(tmp_path).open("colours")
    with pytest.raises(ManifestInvalid, match=r"missing cannot be listed \(No such file or directory\); name a folder"):
        Repository(tmp_path / "missing").names()


def test_version_that_leads_out(own: Repository, exported: Path) -> None:
    (own.root / "colours" / "2").symlink_to(exported)
    with pytest.raises(ManifestInvalid, match="leads out of the model repository; copy the artifact itself there"):
        own.open("colours")


def test_model_that_leads_out(own: Repository, repository: Repository) -> None:
    (own.root / "linked").symlink_to(repository.root / "colours")
    with pytest.raises(ManifestInvalid, match="leads out of the model repository"):
        own.open("linked")


def test_file_that_leads_out(own: Repository, tmp_path: Path) -> None:
    model = own.root / "colours" / "1" / "model.onnx"
    shutil.move(model, tmp_path / "model.onnx")
    model.symlink_to(tmp_path / "model.onnx")
    with pytest.raises(ManifestInvalid, match=r"model\.onnx leads out of the artifact's folder; copy the file itself"):
        own.open("colours")


def test_repository_behind_a_link(own: Repository, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(own.root)
    assert Repository(tmp_path / "link").open("colours").name == "colours"


def test_name_and_version_must_match(own: Repository) -> None:
    (own.root / "colours" / "1").rename(own.root / "colours" / "2")
    with pytest.raises(ManifestInvalid, match=r"manifest\.json says colours/1; rename the folder or publish again"):
        own.open("colours")
    shutil.copytree(own.root / "tones", own.root / "shades")
    with pytest.raises(ManifestInvalid, match="says tones/1"):
        own.open("shades")


def test_spoiled_file(own: Repository) -> None:
    with (own.root / "colours" / "1" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(DigestMismatch, match=r"model\.onnx"):
        own.open("colours")
    with pytest.raises(DigestMismatch):
        own.latest()


def test_artifact_outside_a_repository(exported: Path) -> None:
    artifact = Artifact.open(exported)
    assert (artifact.name, artifact.version) == ("colours", "0")
