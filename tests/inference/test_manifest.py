"""A manifest that is not exactly right is refused, by file and with what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from inference.errors import DigestMismatch, ManifestInvalid
from inference.manifest import MANIFEST, Manifest, digest_of, file_entry, read_manifest, verify_files

Edit = Callable[[Path, Callable[[dict[str, Any]], object]], Path]


def test_round_trip(exported: Path) -> None:
    manifest, digest = read_manifest(exported)
    text = (exported / MANIFEST).read_text(encoding="utf-8")
    assert manifest.to_json() == text
    assert digest == digest_of(text.encode())
    assert Manifest.model_validate_json(text) == manifest
    with pytest.raises(ValidationError, match="frozen"):
        manifest.name = "other"  # type: ignore[misc]


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match=r"manifest\.json is missing: .* copy it again or remove"):
        read_manifest(tmp_path)


def test_unreadable(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(ManifestInvalid, match=r"manifest\.json cannot be read \(Is a directory\); check"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{", b'{"name": ', b"\xff\xfe{}", b"\0" * 20, b"[" * 100_000])
def test_not_json(tmp_path: Path, text: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(text)
    with pytest.raises(ManifestInvalid, match=r"manifest\.json is not JSON .*; copy the folder again or remove it"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["[]", "7", "null", "{}", '{"format_version": 2}', '{"format_version": "1"}'])
def test_other_format_version(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ManifestInvalid, match=r"has format version .*, this Petalpaw reads 1; publish the model again"):
        read_manifest(tmp_path)


def _put(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


REFUSALS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown key": (_put("colour", value=1), r"colour: Extra inputs"),
    "unknown nested key": (_put("preprocessing", "colour", value=1), r"preprocessing\.colour: Extra inputs"),
    "missing key": (lambda content: content.pop("labels"), r"labels: Field required"),
    "wrong type": (_put("labels", value="red"), r"labels: "),
    "one label": (_put("labels", value=["red"]), r"labels: "),
    "labels repeat": (_put("labels", value=["red", "red", "blue"]), r"labels repeat"),
    "a label too few": (_put("labels", value=["red", "blue"]), r"signature does not fit"),
    "another crop": (_put("preprocessing", "crop", value=31), r"signature does not fit"),
    "crop beyond resize": (_put("preprocessing", "crop", value=37), r"crop 37 is larger than resize 36"),
    "golden logits too narrow": (
        _put("golden", "logits", value=[[1.0, 2.0]] * 8),
        r"golden logits are not 8 rows of 3",
    ),
    "golden logits too few": (_put("golden", "logits", value=[[1.0, 2.0, 3.0]] * 7), r"golden logits are not 8 rows"),
    "no golden logits": (_put("golden", "logits", value=[]), r"golden logits are not 8 rows"),
    "no tolerance": (_put("golden", "tolerance", value=0), r"golden\.tolerance: "),
    "tolerance not a number": (_put("golden", "tolerance", value=float("nan")), r"golden\.tolerance: "),
    "temperature 0": (_put("calibration", "temperature", value=0), r"calibration\.temperature: "),
    "temperature not a number": (_put("calibration", "temperature", value=float("nan")), r"calibration\.temperature"),
    "threshold beyond 1": (_put("calibration", "threshold", value=1.01), r"calibration\.threshold: "),
    "version with a zero": (_put("version", value="01"), r"version: "),
    "name that climbs": (_put("name", value="../x"), r"name: "),
    "name with a line end": (_put("name", value="colours\n"), r"name: "),
    "file that climbs": (_put("files", value={"../x": {"sha256": digest_of(b""), "size": 0}}), r"files\.\.\./x"),
    "hidden file": (_put("files", value={".x": {"sha256": digest_of(b""), "size": 0}}), r"files\.\.x"),
    "digest of another kind": (_put("preprocessing_golden", value="md5:00"), r"preprocessing_golden: "),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused(exported: Path, edit: Edit, case: str) -> None:
    change, message = REFUSALS[case]
    edit(exported, change)
    with pytest.raises(ManifestInvalid, match=message) as caught:
        read_manifest(exported)
    assert str(exported / MANIFEST) in caught.value.detail
    assert caught.value.detail.endswith("; publish the model again")


def test_every_problem_is_listed(exported: Path, edit: Edit) -> None:
    edit(exported, lambda content: content.update(version="x", title=7, colour=1))
    with pytest.raises(ManifestInvalid, match=r"version: .*title: .*colour: |title: .*version: .*colour: ") as caught:
        read_manifest(exported)
    assert caught.value.detail.count(": ") >= 4


def test_file_entry(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    entry = file_entry(tmp_path / "a")
    assert entry.size == 3
    assert entry.sha256 == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_wrong_digest(exported: Path) -> None:
    manifest, _ = read_manifest(exported)
    verify_files(exported, manifest)
    data = bytearray((exported / "model.onnx").read_bytes())
    data[40] ^= 1
    (exported / "model.onnx").write_bytes(data)
    with pytest.raises(DigestMismatch, match=r"model\.onnx is not the file that was published: .* copy the artifact"):
        verify_files(exported, manifest)
    verify_files(exported, manifest, {"README.md"})


def test_cut_file(exported: Path) -> None:
    manifest, _ = read_manifest(exported)
    (exported / "model.onnx").write_bytes((exported / "model.onnx").read_bytes()[:-1])
    with pytest.raises(DigestMismatch, match=r"expected \d+ bytes"):
        verify_files(exported, manifest)


def test_missing_file(exported: Path) -> None:
    manifest, _ = read_manifest(exported)
    (exported / "README.md").unlink()
    with pytest.raises(DigestMismatch, match=r"README\.md cannot be read \(No such file or directory\); copy"):
        verify_files(exported, manifest)
