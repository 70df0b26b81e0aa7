"""The model repository: models/<name>/<version>/, one folder per artifact, published atomically."""

import re
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from inference.durability import sync
from inference.errors import ManifestInvalid, ModelUnknown, PublishRefused
from inference.manifest import (
    INT8,
    MANIFEST,
    PARITY,
    Manifest,
    ParityReport,
    file_entry,
    problems,
    read_manifest,
    verify_files,
)

EXPORTED = "artifact"
"""The folder inside a training run that an export fills and a publication reads."""

_LEFT_S = 86_400
"""A folder that publishing works in and that is older was left by a process that was killed."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model folder whose manifest was read; `digest` is the manifest's sha256 and identifies the artifact."""

    folder: Path
    manifest: Manifest
    digest: str

    @classmethod
    def open(cls, folder: Path) -> "Artifact":
        """Read the manifest and compare every file with it. Raises ManifestInvalid or DigestMismatch."""
        manifest, digest = read_manifest(folder)
        inside = folder.resolve()
        for name in manifest.files:
            if not (folder / name).resolve().is_relative_to(inside):
                raise ManifestInvalid(f"{folder / name} leads out of the artifact's folder; copy the file itself there")
        verify_files(folder, manifest)
        return cls(folder, manifest, digest)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The published version, "0" before."""
        return self.manifest.version


class Repository:
    """A folder of models. Hidden entries, half-finished publications among them, are never looked at."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """The models that have at least one version, sorted. Raises ManifestInvalid when the root is unreadable."""
        return [name for name in self._entries(self.root, _NAME) if self.versions(name)]

    def versions(self, name: str) -> list[str]:
        """The versions of a model, oldest first; empty when there is no such model.

        Raises ManifestInvalid when its folder is unreadable.
        """
        home = self.root / name
        try:
            if not _NAME.fullmatch(name) or not home.is_dir():
                return []
        except OSError as error:
            raise _unlisted(home, error) from error
        return sorted(self._entries(home, _VERSION), key=int)

    def open(self, name: str, version: str | None = None) -> Artifact:
        """A verified artifact, by default its latest version. Raises ModelUnknown, ManifestInvalid, DigestMismatch."""
        versions = self.versions(name)
        if not versions or (version is not None and version not in versions):
            known = ", ".join(f"{each}/{one}" for each in self.names() for one in self.versions(each)) or "none"
            wanted = name if version is None else f"{name}/{version}"
            raise ModelUnknown(f"there is no model {wanted!r} in {self.root}; known: {known}")
        version = version or versions[-1]
        folder = self.root / name / version
        if not folder.resolve().is_relative_to(self.root.resolve()):
            raise ManifestInvalid(f"{folder} leads out of the model repository; copy the artifact itself there")
        artifact = Artifact.open(folder)
        if (artifact.name, artifact.version) != (name, version):
            raise ManifestInvalid(
                f"{folder / MANIFEST} says {artifact.name}/{artifact.version}; rename the folder or publish again"
            )
        return artifact

    def contents(self) -> list[tuple[str, str]]:
        """Name and version of everything in the repository, sorted. Raises ManifestInvalid when there is nothing."""
        found = [(name, version) for name in self.names() for version in self.versions(name)]
        if not found:
            raise ManifestInvalid(
                f"{self.root} holds no model; publish one with `petalpaw publish RUN`, or name another repository"
            )
        return found

    def latest(self) -> list[Artifact]:
        """The latest version of every model, sorted by name. Raises as `open` and `contents` do."""
        return [self.open(name) for name in dict(self.contents())]

    def publish(self, source: Path) -> Artifact:
        """Copy an exported artifact in as the next version of its model, all or nothing.

        Raises PublishRefused when its parity report is missing, failed, or speaks of other files; DigestMismatch and
        ManifestInvalid as `Artifact.open` does.
        """
        exported = Artifact.open(source)
        report = read_parity(source, exported.manifest)
        versions = self.versions(exported.name)
        version = str(int(versions[-1]) + 1 if versions else 1)
        home = self.root / exported.name
        staging = home / f".publish-{secrets.token_hex(4)}"
        _sweep(home)
        try:
            staging.mkdir(parents=True)
            for name in (*exported.manifest.files, PARITY):
                shutil.copyfile(source / name, staging / name)
            manifest = exported.manifest.model_copy(
                update={
                    "version": version,
                    "parity": report.figures,
                    "files": {**exported.manifest.files, PARITY: file_entry(staging / PARITY)},
                }
            )
            (staging / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
            for path in (*staging.iterdir(), staging):
                sync(path)
            # Fails when a neighbour published the same version first: a folder that is not empty is never replaced.
            staging.rename(home / version)
        except OSError as error:
            raise PublishRefused(f"{home / version} could not be written ({error}); nothing was published") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        sync(home)
        return self.open(exported.name, version)

    def _entries(self, folder: Path, pattern: re.Pattern[str]) -> list[str]:
        try:
            return sorted(entry.name for entry in folder.iterdir() if pattern.fullmatch(entry.name) and entry.is_dir())
        except OSError as error:
            raise _unlisted(folder, error) from error


def _unlisted(folder: Path, error: OSError) -> ManifestInvalid:
    return ManifestInvalid(
        f"{folder} cannot be listed ({error.strerror}); name a folder of models that this user may read"
    )


def _sweep(home: Path) -> None:
    """Remove what publishing left that was killed; a neighbour's, who is at it now, is never so old."""
    for left in home.glob(".publish-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT_S:
                shutil.rmtree(left, ignore_errors=True)


def read_parity(folder: Path, manifest: Manifest) -> ParityReport:
    """The parity report of an exported artifact, if it allows publishing. Raises PublishRefused."""
    path = folder / PARITY
    try:
        report = ParityReport.model_validate_json(path.read_bytes())
    except OSError:
        raise PublishRefused(f"{path} is missing; run `petalpaw parity` on the run first") from None
    except ValidationError as error:
        found = problems(error)
        raise PublishRefused(f"{path} is not a parity report ({found}); run `petalpaw parity` again") from error
    if report.files != {name: manifest.files[name].sha256 for name in manifest.files if name in report.files}:
        raise PublishRefused(f"{path} speaks of other files than the artifact holds; run `petalpaw parity` again")
    unproven = {name for name in manifest.files if name.startswith("model.")} - report.files.keys()
    if unproven:
        raise PublishRefused(f"{path} does not cover {', '.join(sorted(unproven))}; run `petalpaw parity` again")
    if manifest.preprocessing.decoder != "pillow" and not (report.decoder and report.decoder.passed):
        raise PublishRefused(f"{path} does not show that the decoder keeps the labels; run `petalpaw parity` again")
    # Whoever made the report: the figures decide about an int8 file.
    if (
        weak := [str(figure) for figure in manifest.quantized.figures if not figure.passed]
        if manifest.quantized
        else []
    ):
        raise PublishRefused(f"{INT8} is not near enough: {'; '.join(weak)}; export it again with other settings")
    if not report.passed:
        raise PublishRefused(f"{path} says that parity failed: {'; '.join(report.problems)}")
    return report
