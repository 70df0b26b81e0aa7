"""How a folder of one's own photos is arranged: class folders, or split folders with class folders in each."""

from dataclasses import dataclass
from pathlib import Path

from inference.errors import DataInvalid
from training.scan import is_class, scan_source
from training.sections import Source

_NAMES = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}
"""What the folders of splits are called, whatever the case."""

_ENOUGH_FOR_TEST = 30
"""Photos of the smallest class above which a fifth is worth keeping unseen."""

_SHARE = 0.2


@dataclass(frozen=True)
class Layout:
    """`data` is the section of a recipe; `train` counts the training photos of each class, shares taken off."""

    data: dict[str, dict[str, object]]
    train: dict[str, int]

    @property
    def smallest(self) -> tuple[str, int]:
        """The class with the fewest training photos, and how many they are."""
        label = min(self.train, key=self.train.__getitem__)
        return label, self.train[label]

    @property
    def per_class(self) -> float:
        """Training photos per class, in the mean."""
        return sum(self.train.values()) / len(self.train)

    def __str__(self) -> str:
        origins = []
        for split, source in self.data.items():
            share = source.get("share")
            origins.append(f"{split} {share:.0%} of {source['of']}" if share else f"{split} {source['folder']!r}")
        why = "too few photos for" if self.data["train"]["folder"] == "." else "a folder `test` beside them would be"
        return ", ".join(origins) + ("" if "test" in self.data else f"; {why} an unseen test split")


def recognise(root: Path) -> Layout:
    """The layout of a folder of photos. Raises DataInvalid where no class folders are seen, or some would be unused."""
    folders = _folders(root)
    splits = {folder: split for folder in folders for split, names in _NAMES.items() if folder.name.lower() in names}
    named = {split: folder for folder, split in splits.items()}
    if "train" in named and _folders(named["train"]):
        if unused := [folder.name for folder in folders if folder not in named.values()]:
            raise DataInvalid(
                f"{named['train'].name!r} in {root} looks like a split, so nothing would use {', '.join(unused)} "
                "beside it; keep one folder per split (train, val, test) and move the others away, or rename "
                f"{named['train'].name!r} where it is a class like them"
            )
        return _in_splits(root, {split: named[split].name for split in _NAMES if split in named})
    if folders and len(splits) == len(folders):
        raise DataInvalid(
            f"{', '.join(folder.name for folder in folders)} in {root} look like splits without training classes; "
            "make a folder `train` in which every class has a folder of its own"
        )
    if len(folders) == 1 and len(_folders(folders[0])) > 1:
        raise DataInvalid(
            f"{root} holds the one folder {folders[0].name!r}, whose folders look like the classes; "
            f"pass --data {folders[0]}"
        )
    if not folders:
        files = sum(1 for entry in root.iterdir() if entry.is_file())
        raise DataInvalid(
            f"{root} holds {files} files and no folders; make one folder per class in it, named after the class, "
            "and move the photos there"
        )
    return _in_classes(root)


def _in_splits(root: Path, folders: dict[str, str]) -> Layout:
    data: dict[str, dict[str, object]] = {"train": {"folder": folders["train"]}}
    share = 0.0
    if "validation" in folders:
        data["validation"] = {"folder": folders["validation"]}
    else:
        data["validation"], share = {"share": _SHARE, "of": "train"}, _SHARE
    if "test" in folders:
        data["test"] = {"folder": folders["test"]}
    return Layout(data, _counts(root, folders["train"], share))


def _in_classes(root: Path) -> Layout:
    data: dict[str, dict[str, object]] = {"train": {"folder": "."}, "validation": {"share": _SHARE, "of": "train"}}
    if min(_counts(root, ".", 0).values()) < _ENOUGH_FOR_TEST:
        return Layout(data, _counts(root, ".", _SHARE))
    return Layout(data | {"test": {"share": _SHARE, "of": "train"}}, _counts(root, ".", 2 * _SHARE))


def _counts(root: Path, folder: str, share: float) -> dict[str, int]:
    classes = scan_source(root.resolve(), Source(folder=folder)).classes
    return {label: round(len(files) * (1 - share)) for label, files in classes.items()}


def _folders(root: Path) -> list[Path]:
    """The folders in a folder that may hold photos. Raises DataInvalid where it cannot be listed."""
    try:
        return sorted(entry for entry in root.iterdir() if is_class(entry))
    except OSError as error:
        raise DataInvalid(f"{root} is no folder that can be read ({error.strerror}); check --data") from error
