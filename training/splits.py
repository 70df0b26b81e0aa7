"""Folders of class folders to the members of train, validation and test.

What lies in a folder is scan.py's to say. The content decides what is a photo, so a stray text file is reported like a
damaged photo.
"""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from inference.budget import whole_cores
from inference.errors import DataInvalid
from inference.manifest import Digest, digest_of
from training.progress import Progress
from training.scan import LeftOut, Scan, folder_problems, scan_source
from training.sections import Data, Source

SPLITS = ("train", "validation", "test")

OTHER_CLASS = ", which is of another class"
"""Stands in the detail of a file that was left out for the same file under another label."""


@dataclass(frozen=True)
class Item:
    """One photo of a split: path relative to the data root with forward slashes, class index, `sha256:` of the file."""

    path: str
    label: int
    sha256: Digest


def check_data(data: Data, data_root: Path) -> list[str]:
    """Everything that is wrong with the folders of a recipe, without opening a photo; empty when all is well."""
    root = data_root.resolve()
    if not root.is_dir():
        fetch = f", or run `petalpaw data fetch {' '.join(data.sets)} --to {data_root}`" if data.sets else ""
        return [f"data: the data root {data_root} is not a folder; give the folder that holds your photos{fetch}"]
    problems: list[str] = []
    scans: dict[str, Scan] = {}
    for split in SPLITS:
        source: Source | None = getattr(data, split)
        if source is None or source.share is not None:
            continue
        if missing := folder_problems(root, source, data.sets):
            problems += [f"data.{split}.{problem}" for problem in missing]
        else:
            scans[split] = scan_source(root, source)
    if "train" not in scans:
        return problems
    labels = _labels(data, scans["train"])
    if len(labels) < 2:
        found = f"only {labels[0]!r}" if labels else "none"
        problems.append(
            f"data.train: a classifier needs two classes or more, {_place(data.train, data_root)} holds {found}; "
            "make one folder per class, named after it"
        )
    for split, scan in scans.items():
        problems += _class_problems(split, scan, labels, data)
    return problems


def find_splits(data: Data, data_root: Path, seed: int) -> tuple[dict[str, list[Item]], tuple[str, ...], list[LeftOut]]:
    """The members of every split, the labels in index order, and what was left out.

    Deterministic: equal files under equal names give equal splits, whatever order the file system lists them in.
    Shares are stratified, copies of one file always fall into the same split, and what stands in an earlier split is
    left out of a later one. Photos are read for their digest
    but not decoded. Raises DataInvalid with every problem that `check_data` finds.
    """
    if problems := check_data(data, data_root):
        raise DataInvalid("\n".join(["the photos cannot be used:", *(f"  - {problem}" for problem in problems)]))
    root = data_root.resolve()
    scans = _scans(data, root)
    labels = _labels(data, scans["train"])
    left_out = [entry for scan in scans.values() for entry in scan.left_out]
    whole = {split: _digested(root, scan, labels, left_out) for split, scan in scans.items()}
    return _without_repeats(_divided(data, whole, seed), left_out), labels, left_out


def count_photos(data: Data, data_root: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """How many files each split would have, and the labels, without opening one. Raises DataInvalid as `find_splits`.

    Copies of one file and damaged files are found out only when the photos are read.
    """
    if problems := check_data(data, data_root):
        raise DataInvalid("\n".join(["the photos cannot be used:", *(f"  - {problem}" for problem in problems)]))
    root = data_root.resolve()
    scans = _scans(data, root)
    labels = _labels(data, scans["train"])
    # A path stands for the digest: how many photos a share takes does not depend on which.
    whole = {split: [Item(path, label, path) for path, label in _places(scan, labels)] for split, scan in scans.items()}
    return {split: len(items) for split, items in _divided(data, whole, seed=0).items()}, labels


def fingerprint(splits: dict[str, list[Item]], labels: Sequence[str]) -> Digest:
    """`sha256:` over split, path, label and digest of every member: equal fingerprints mean equal data."""
    lines = sorted(
        f"{split}\t{item.path}\t{labels[item.label]}\t{item.sha256}"
        for split, items in splits.items()
        for item in items
    )
    return digest_of("\n".join(lines).encode("utf-8", "surrogateescape"))


def write_splits(path: Path, splits: dict[str, list[Item]], labels: Sequence[str]) -> None:
    """splits.csv: one row per photo with split, path, label, index and digest."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "path", "label", "index", "sha256"])
        for split, items in splits.items():
            writer.writerows([split, item.path, labels[item.label], item.label, item.sha256] for item in items)


def read_splits(path: Path) -> dict[str, list[Item]]:
    """What `write_splits` wrote. Raises OSError, or ValueError for a file that is not a splits.csv."""
    splits: dict[str, list[Item]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        for row in csv.DictReader(file):
            try:
                splits[row["split"]].append(Item(row["path"], int(row["index"]), row["sha256"]))
            except (KeyError, TypeError) as error:
                raise ValueError(f"a row lacks {error}") from error
    return dict(splits)


def _place(source: Source, root: Path) -> str:
    """What holds a source's class folders, in words."""
    return "`folders`" if source.folders else str(root) if source.folder == "." else repr(source.folder)


def _scans(data: Data, root: Path) -> dict[str, Scan]:
    """The files of every split that has folders of its own."""
    sources: dict[str, Source | None] = {split: getattr(data, split) for split in SPLITS}
    return {split: scan_source(root, source) for split, source in sources.items() if source and source.share is None}


def _labels(data: Data, train: Scan) -> tuple[str, ...]:
    return data.classes if data.classes is not None else tuple(train.classes)


def _class_problems(split: str, scan: Scan, labels: Sequence[str], data: Data) -> list[str]:
    problems = []
    sources = {name: source for name in SPLITS if (source := getattr(data, name))}
    needed = 1 + sum(1 for source in sources.values() if source.of == split)
    for label in labels:
        count = len(scan.classes.get(label, ()))
        if not _is_text(label):
            problems.append(f"data.{split}: the name of class folder {label!r} is not UTF-8; rename it")
        if label not in scan.classes:
            problems.append(f"data.{split}: there is no folder for class {label!r}; add it, or leave the class out")
        elif count == 0:
            problems += [f"data.{split}: class {label!r} has no photos: {why}" for why in _why_empty(scan, label)]
        elif count < needed:
            photos = "photo" if count == 1 else "photos"
            problems.append(f"data.{split}: class {label!r} has {count} {photos}, its {needed} splits need one each")
    problems += [
        f"data.{split}.most: there is no class {label!r}; its classes are {', '.join(scan.classes)}"
        for label in sources[split].most
        if label not in scan.classes
    ]
    if data.classes is None:
        problems += [
            f"data.{split}: class {label!r} is not among the training classes; "
            "add photos of it to train, remove the folder, or list `classes`"
            for label in scan.classes
            if label not in labels
        ]
    return problems


def _why_empty(scan: Scan, label: str) -> list[str]:
    """Why a class has no file: its own links that lead out of the data root, three at most, or nothing is there."""
    folder = f"{scan.folders[label]}/"
    own = [f"{entry.path}: {entry.detail}" for entry in scan.left_out if f"{entry.path}/".startswith(folder)]
    return own[:3] or ["its folder is empty; add photos, or leave the class out"]


def _is_text(name: str) -> bool:
    """Whether a file name can stand in JSON: Python reads bytes that are no UTF-8 as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _places(scan: Scan, labels: Sequence[str]) -> list[tuple[str, int]]:
    """Path and class index of every file, in label order."""
    return [(path, index) for index, label in enumerate(labels) for path in scan.classes[label]]


def _digested(root: Path, scan: Scan, labels: Sequence[str], left_out: list[LeftOut]) -> list[Item]:
    """Items with their files' digests, in label order; files that cannot be read are left out."""

    def read(place: tuple[str, int]) -> Item | LeftOut:
        path, label = place
        try:
            return Item(path, label, digest_of((root / path).read_bytes()))
        except OSError as error:
            return LeftOut(path, "image_unreadable", f"{error.strerror}; check the file's mode")

    places = _places(scan, labels)
    with ThreadPoolExecutor(whole_cores()) as pool, Progress("reading files", len(places)) as progress:
        found = [progress.step(item) for item in pool.map(read, places)]
    left_out += [item for item in found if isinstance(item, LeftOut)]
    return [item for item in found if isinstance(item, Item)]


def _divided(data: Data, whole: dict[str, list[Item]], seed: int) -> dict[str, list[Item]]:
    """Every split in the order of SPLITS: those that have folders, and the shares that others take of them."""
    splits = dict(whole)
    for parent in ("train", "validation"):
        shares = [
            (split, source.share)
            for split in ("test", "validation")
            if (source := getattr(data, split)) and source.share and source.of == parent
        ]
        if shares:
            splits |= _shared_out(parent, splits[parent], shares, seed)
    return {split: splits[split] for split in SPLITS if split in splits}


def _shared_out(
    parent: str, items: Iterable[Item], shares: list[tuple[str, float]], seed: int
) -> dict[str, list[Item]]:
    """Split items class by class: each takes its share of a class in an order that the seed and the contents give.

    The order comes from hashes, so that adding or renaming a photo leaves the others where they were.
    """
    classes: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        classes[item.label].append(item)
    parts: dict[str, list[Item]] = defaultdict(list)
    for members in classes.values():
        order = sorted(members, key=lambda item: (_rank(seed, item), item.path))
        start = 0
        for left, (split, share) in enumerate(shares):
            room = len(order) - (len(shares) - left)  # each later split, the parent among them, keeps one
            end = min(start + max(round(share * len(order)), 1), room)
            while start < end < room and order[end].sha256 == order[end - 1].sha256:
                end += 1
            parts[split] += order[start:end]
            start = end
        parts[parent] += order[start:]
    return {split: sorted(members, key=lambda item: (item.label, item.path)) for split, members in parts.items()}


def _without_repeats(splits: dict[str, list[Item]], left_out: list[LeftOut]) -> dict[str, list[Item]]:
    """The splits, each without the files of those before it: a figure on photos that were trained on says nothing."""
    seen: dict[str, Item] = {}
    for split, items in splits.items():
        for item in items:
            if item.sha256 in seen:
                first = seen[item.sha256]
                another = "" if first.label == item.label else OTHER_CLASS
                detail = f"not in {split}: the same file as {first.path}{another}"
                left_out.append(LeftOut(item.path, "data_invalid", detail))
        splits[split] = [item for item in items if item.sha256 not in seen]
        seen |= {item.sha256: item for item in splits[split]}
    return splits


def _rank(seed: int, item: Item) -> bytes:
    return hashlib.sha256(f"{seed}:{item.sha256}".encode()).digest()
