"""The files of a split's class folders, found without opening any.

Rules: a class is a folder directly below the split's folder, and its name is the label, or the recipe names a folder
for each class. Photos may lie in nested folders. Names that begin with a dot are skipped, as is the __MACOSX of zip
files made on a Mac. Links are followed while they stay inside the data root; those that leave it are left out and
reported, as are files beside the class folders, and runs and model repositories of Petalpaw's own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.sections import Source

_OWN = ("run.json", "*/run.json", "*/*/manifest.json")
"""Files that a run, a folder of runs and a model repository hold."""


@dataclass(frozen=True)
class LeftOut:
    """A file that no split holds: its path, the error's code, and what to do about it."""

    path: str
    code: str
    detail: str


@dataclass
class Scan:
    """The files and the folder of each class of a split by its name, before any of them is opened."""

    classes: dict[str, list[str]] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


def folder_problems(root: Path, source: Source, sets: Sequence[str] = ()) -> list[str]:
    """What keeps a source's folders from being read, `key: what is wrong`; empty when nothing does.

    A folder of one of the named `sets` can be fetched, which is said.
    """
    named = {"folder": source.folder} if source.folder is not None else {}
    named |= {f"folders.{label}": folder for label, folder in (source.folders or {}).items()}
    return [f"{key}: {problem}" for key, folder in named.items() if (problem := _folder_problem(root, folder, sets))]


def is_skipped(entry: Path) -> bool:
    """Whether a file or folder is none of the user's photos, by its name."""
    return entry.name.startswith(".") or entry.name == "__MACOSX"


def is_own(folder: Path) -> bool:
    """Whether a folder is what Petalpaw itself wrote: a run, runs or a model repository among the photos."""
    return any(any(folder.glob(pattern)) for pattern in _OWN)


def scan_source(root: Path, source: Source) -> Scan:
    """The files of a source with folders. Of a class in `most`, the first so many in the order of their names."""
    scan = Scan(left_out=_beside(root, source))
    for label, folder in _class_folders(root, source):
        inside = _inside(root, folder, scan.left_out)
        files = _files(root, folder, scan.left_out, {folder.resolve()}) if inside else []
        paths = [file.relative_to(root).as_posix() for file in files]
        if label in source.most:
            paths = sorted(paths, key=_by_number)[: source.most[label]]
        scan.classes[label], scan.folders[label] = paths, folder.relative_to(root).as_posix()
    return scan


def _class_folders(root: Path, source: Source) -> list[tuple[str, Path]]:
    """Label and folder of every class, sorted by label."""
    if source.folders is not None:
        return sorted((label, root / folder) for label, folder in source.folders.items())
    entries = (root / (source.folder or ".")).iterdir()
    return sorted((entry.name, entry) for entry in entries if is_class(entry))


def is_class(entry: Path) -> bool:
    """Whether a folder among the photos may be a class: visible, and nothing that Petalpaw wrote."""
    return entry.is_dir() and not is_skipped(entry) and not is_own(entry)


def _beside(root: Path, source: Source) -> list[LeftOut]:
    """What lies beside the class folders and has no label: files, and what Petalpaw wrote there."""
    if source.folders is not None:
        return []
    entries = sorted((root / (source.folder or ".")).iterdir())
    files = [entry.relative_to(root).as_posix() for entry in entries if not is_skipped(entry) and not entry.is_dir()]
    detail = "lies beside the class folders; if it is a photo, move it into the folder of its class"
    ours = [entry.relative_to(root).as_posix() for entry in entries if entry.is_dir() and is_own(entry)]
    why = "is a run or a model repository of Petalpaw's, not a class; better keep it elsewhere"
    return [LeftOut(file, "data_invalid", detail) for file in files] + [
        LeftOut(folder, "data_invalid", why) for folder in ours
    ]


def _by_number(path: str) -> list[str | int]:
    """Names as people count them: cat.2 before cat.10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path)]


def _folder_problem(root: Path, folder: str, sets: Sequence[str]) -> str | None:
    path = (root / folder).resolve()
    if not path.is_relative_to(root):
        return f"{folder!r} leaves the data root {root}; choose a data root that holds it"
    if not path.is_dir():
        name = folder.partition("/")[0]
        remedy = f"run `petalpaw data fetch {name} --to {root}`" if name in sets else "correct one of the two"
        return f"{folder!r} is not a folder in the data root {root}; {remedy}"
    return None


def _files(root: Path, folder: Path, left_out: list[LeftOut], seen: set[Path]) -> list[Path]:
    """Every file below a folder, sorted by name; `seen` stops links that lead in circles."""
    files: list[Path] = []
    for entry in sorted(folder.iterdir(), key=lambda path: path.name):
        if is_skipped(entry) or not _inside(root, entry, left_out):
            continue
        if entry.is_dir():
            real = entry.resolve()
            if real not in seen:
                files += _files(root, entry, left_out, seen | {real})
        elif entry.is_file():
            files.append(entry)
        else:
            path = entry.relative_to(root).as_posix()
            left_out.append(LeftOut(path, "image_unreadable", "neither a file nor a folder; remove it"))
    return files


def _inside(root: Path, entry: Path, left_out: list[LeftOut]) -> bool:
    if not entry.is_symlink() or entry.resolve().is_relative_to(root):
        return True
    detail = "the link leaves the data root; copy the photos into it, or move the data root up"
    left_out.append(LeftOut(entry.relative_to(root).as_posix(), "image_unreadable", detail))
    return False
