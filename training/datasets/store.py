"""The data root: which sets lie there, and how one comes to lie there.

    addresses ─ download ─┐
                          ├→ verified files → pictures → .NAME.part/ → NAME/
    --from DIR ─ found ───┘

A set has its name only when it is whole: it is written beside and renamed.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from inference.errors import DataInvalid
from training.datasets.catalog import Archive, NamedSet, named
from training.datasets.contents import read_content
from training.datasets.download import download, sha256_of
from training.lock import held
from training.progress import Progress, say

DATA_ROOT = Path("data")
"""Where sets go when nothing else is said."""

DOWNLOADS = ".downloads"


def lacking(chosen: NamedSet, root: Path) -> list[str]:
    """The class folders that are not there or empty, relative to the root; none: the set is there."""
    folders = [f"{chosen.name}/{split}/{label}" for split in chosen.splits for label in chosen.classes]
    return [folder for folder in folders if not _holds_files(root / folder)]


def pictures_in(chosen: NamedSet, root: Path) -> int:
    """How many files lie in the set's class folders."""
    folders = [root / chosen.name / split / label for split in chosen.splits for label in chosen.classes]
    return sum(1 for folder in folders if folder.is_dir() for _ in folder.iterdir())


def fetch(chosen: NamedSet, root: Path, source: Path | None = None) -> bool:
    """Make the set stand under `root`, from its official addresses or from the files below `source`.

    False when it stood there already. Raises DownloadFailed, DataInvalid, OutputUnwritable, or RunInvalid while
    another process works in the same root.
    """
    if not lacking(chosen, root):
        return False
    if (root / chosen.name).exists():
        raise DataInvalid(
            f"{root / chosen.name} is there but lacks {_few(lacking(chosen, root))}; "
            "move it away to have the set made anew, or choose another folder with --to"
        )
    root.mkdir(parents=True, exist_ok=True)
    say(f"{chosen.name}: {chosen.title}; {chosen.count:,} pictures from {chosen.origin}")
    say(f"  licence: {chosen.licence}")
    with held(root, ".fetching"):
        files = _found(chosen, source) if source else [download(each, root / DOWNLOADS) for each in chosen.archives]
        _lay_out(chosen, files, root)
        if not source:
            _remove(files)
    return True


def fetch_all(names: Iterable[str], root: Path) -> None:
    """Make every named set stand under `root`. Raises as `fetch` does."""
    for name in names:
        fetch(named(name), root)


def _lay_out(chosen: NamedSet, files: Sequence[Path], root: Path) -> None:
    """Write the pictures of verified files beside, then give the folder its name."""
    _check_contents(chosen.archives, files)
    making = root / f".{chosen.name}.part"
    shutil.rmtree(making, ignore_errors=True)
    for split in chosen.splits:
        for label in chosen.classes:
            (making / chosen.name / split / label).mkdir(parents=True)
    with Progress(f"{chosen.name}: writing", chosen.count, "pictures") as progress:
        for name, content in chosen.pictures(files):
            progress.step((making / chosen.name / name).write_bytes(content))
    if missing := lacking(chosen, making):
        raise DataInvalid(f"{', '.join(map(str, files))} gave no picture for {_few(missing)}; fetch it again")
    written = pictures_in(chosen, making)
    (making / chosen.name).rename(root / chosen.name)
    making.rmdir()
    short = "" if written == chosen.count else f" of {chosen.count:,}"
    say(f"{chosen.name}: {written:,}{short} pictures in {root / chosen.name}")


def _remove(files: Sequence[Path]) -> None:
    """Remove downloaded archives; what another set has begun to download stays."""
    for path in files:
        path.unlink()
    with suppress(OSError):
        files[0].parent.rmdir()


def _check_contents(archives: Sequence[Archive], files: Sequence[Path]) -> None:
    """Hold files that may have been compressed anew to the digest of what they hold. Raises DataInvalid."""
    for archive, path in zip(archives, files, strict=True):
        if archive.content_sha256 is None:
            continue
        if (found := hashlib.sha256(read_content(path)).hexdigest()) != archive.content_sha256:
            raise DataInvalid(
                f"{path} is not the official file: its content's sha256 is {found}, not {archive.content_sha256}; "
                "fetch it again"
            )


def _found(chosen: NamedSet, source: Path) -> list[Path]:
    """The set's files below a folder, verified: each archive as it was published, or unpacked. Raises DataInvalid."""
    if not source.is_dir():
        raise DataInvalid(f"--from {source} is not a folder; name the one that the downloaded files lie in")
    wanted_files = {each.name for each in chosen.archives} | {each.unpacked for each in chosen.archives}
    wanted_folders = {each.unpacked for each in chosen.archives if each.content_sha256 is None}
    present: dict[str, Path] = {}
    for folder, folders, files in os.walk(source):
        folders.sort()
        for name in sorted(wanted_files.intersection(files) | wanted_folders.intersection(folders)):
            present.setdefault(name, Path(folder) / name)
    paths = [present.get(archive.name) or present.get(archive.unpacked) for archive in chosen.archives]
    lost = [f"{each.name} (or {each.unpacked})" for each, path in zip(chosen.archives, paths, strict=True) if not path]
    if lost:
        raise DataInvalid(f"there is no {', no '.join(lost)} below {source}; download it there, or leave --from out")
    found = [path for path in paths if path]
    for archive, path in zip(chosen.archives, found, strict=True):
        _check_local(archive, path)
    return found


def _check_local(archive: Archive, path: Path) -> None:
    if path.is_dir():
        say(f"{path} is unpacked: its photos are taken as they are, there is no digest to hold them to")
    elif archive.content_sha256 is None and (found := sha256_of(path)) != archive.sha256:
        raise DataInvalid(
            f"{path} is not the official file: {path.stat().st_size:,} bytes with sha256 {found}, "
            f"not {archive.size:,} with {archive.sha256}; download it again"
        )


def _holds_files(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(entry.is_file() for entry in entries)


def _few(folders: Sequence[str]) -> str:
    return ", ".join(folders[:3]) + (f" and {len(folders) - 3} more folders" if len(folders) > 3 else "")
