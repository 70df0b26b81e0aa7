"""A run folder, opened: what was trained, how well it does, and the network itself."""

import importlib.metadata
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from inference.errors import DataInvalid, PetalpawError, RunInvalid
from inference.manifest import Calibration, Digest, Metrics, Provenance, digest_of, problems
from training.checkpoint import BEST, LAST, RUN_JSON, read, write_atomically
from training.lock import LOCK
from training.recipe import Recipe, load_recipe
from training.sections import Normalization, Source
from training.splits import SPLITS, Item, read_splits

if TYPE_CHECKING:
    from training.backbones import Normalized

RECIPE_YAML, SPLITS_CSV = "recipe.resolved.yaml", "splits.csv"
RATES_CSV, RATES_PNG = "rates.csv", "rates.png"
LEFT_OUT_CSV, CHECKS_CSV, BATCH_PNG, PIXELS = "left_out.csv", "checks.csv", "batch.png", ".pixels"

_UNBEGUN = {PIXELS, LOCK, LEFT_OUT_CSV, CHECKS_CSV, BATCH_PNG, SPLITS_CSV, RATES_CSV, RATES_PNG}.union(
    *({name, f".{name}.part"} for name in (RECIPE_YAML, LAST)), {f".{RUN_JSON}.part"}
)
"""What a run killed before its run.json leaves behind: nothing that is worth keeping or could be gone on with."""

_PACKAGES = ("petalpaw", "torch", "torchvision", "numpy", "pillow", "scikit-learn")


class Record(BaseModel):
    """run.json. `calibration` and `metrics` are None until the run has finished; `metrics` are those of test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    status: Literal["training", "finished"] = "training"
    labels: tuple[str, ...]
    data_root: str
    compute: str
    weights: dict[str, Any]
    normalization: Normalization | None = None
    left_out: int
    provenance: Provenance
    calibration: Calibration | None = None
    validation: Metrics | None = None
    metrics: Metrics | None = None

    def write(self, folder: Path) -> None:
        """Write run.json atomically. Raises RunInvalid."""
        text = self.model_dump_json(indent=2) + "\n"
        write_atomically(folder / RUN_JSON, lambda file: file.write(text.encode()))


@dataclass(frozen=True)
class Run:
    """A finished run. `Run.open(folder)` reads one; nothing in it changes afterwards.

    `labels` are the class names in index order, `metrics` those of the test split (None when the recipe has none),
    `calibration` was fitted on validation, `data_root` is where the photos were.
    """

    folder: Path
    recipe: Recipe
    labels: tuple[str, ...]
    calibration: Calibration
    metrics: Metrics | None
    provenance: Provenance
    data_root: Path

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read a run folder. Raises RunInvalid: missing, unfinished, damaged, or of another format."""
        record, recipe = read_record(folder)
        if record.status != "finished" or record.calibration is None:
            raise RunInvalid(f"the run in {folder} has not finished; go on with `petalpaw train --resume {folder}`")
        return cls(
            folder=folder,
            recipe=recipe,
            labels=record.labels,
            calibration=record.calibration,
            metrics=record.metrics,
            provenance=record.provenance,
            data_root=Path(record.data_root),
        )

    def module(self) -> "Normalized":
        """The kept weights on the CPU in evaluation mode: uint8 (batch, crop, crop, 3) → float32 (batch, classes)."""
        return kept_module(self.folder, self.recipe, self.labels, self.provenance.recipe_sha256)

    def items(self, split: str) -> tuple[Item, ...]:
        """The members of `train`, `validation` or `test`, in the order of splits.csv. Raises RunInvalid."""
        path = self.folder / SPLITS_CSV
        try:
            splits = read_splits(path)
        except (OSError, ValueError) as error:
            raise RunInvalid(f"{path} is missing or damaged ({error}); train again") from error
        if split not in splits:
            raise RunInvalid(f"{path} has no split {split!r}; it has {', '.join(splits)}")
        return tuple(splits[split])

    def photos(self, split: str, limit: int | None = None, data_root: Path | None = None) -> list[Path]:
        """Paths of a split's photos, spread evenly over the split when limited.

        Raises DataInvalid when the data root, or a photo in it, is no longer there.
        """
        root, items = data_root or self.data_root, self.items(split)
        count = len(items) if limit is None else min(limit, len(items))
        paths = [root / items[index * len(items) // count].path for index in range(count)]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataInvalid(
                f"{len(missing)} photos of {split} are gone, {missing[0]} first; pass the data root again"
            )
        return paths


def check_place(folder: Path, recipe: Recipe, data_root: Path) -> None:
    """Raises RunInvalid for a run folder among the photos: its pictures would be taken for photos of a class."""
    for split in SPLITS:
        source: Source | None = getattr(recipe.data, split)
        for name in [source.folder or "", *(source.folders or {}).values()] if source else []:
            if name and folder.resolve().is_relative_to((data_root / name).resolve()):
                raise RunInvalid(
                    f"the run folder {folder} would lie among the photos in {data_root / name}, as a class of theirs; "
                    "choose one elsewhere with --run"
                )


def claim(folder: Path, recipe: Recipe, resume: bool) -> None:
    """Make the run folder, or make sure that it may be gone on with.

    Raises RunInvalid: not writable, in use, begun with another recipe, or without what resuming needs.
    """
    if resume:
        if read_record(folder)[1] != recipe:
            raise RunInvalid(
                f"{folder} was begun with another recipe; resume with its {RECIPE_YAML}, or choose a new folder"
            )
        # Beginning again here could take other first weights than the run's.
        if not (folder / LAST).is_file():
            raise RunInvalid(f"{folder} cannot be gone on with: its {LAST} is missing; train into a new folder")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = not {path.name for path in folder.iterdir()} <= _UNBEGUN
    except OSError as error:
        raise RunInvalid(f"{folder} cannot be made a run folder ({error.strerror}); choose another") from error
    if occupied:
        raise RunInvalid(f"{folder} is not empty; choose a new run folder, or go on with this one with --resume")


def read_record(folder: Path) -> tuple[Record, Recipe]:
    """run.json and the resolved recipe of a run folder, finished or not. Raises RunInvalid."""
    path = folder / RUN_JSON
    try:
        record = Record.model_validate_json(path.read_bytes())
        recipe = load_recipe(folder / RECIPE_YAML)
    except (FileNotFoundError, NotADirectoryError):
        raise RunInvalid(f"{folder} is not a run folder: {path} is missing; check the path, or train first") from None
    except OSError as error:
        raise RunInvalid(f"{path} cannot be read ({error.strerror}); check its owner and mode") from error
    except ValidationError as error:
        raise RunInvalid(f"{path} is damaged or of another format: {problems(error)}; train again") from error
    except PetalpawError as error:
        raise RunInvalid(f"the run folder {folder} is damaged: {error.detail}") from error
    # The file's own bytes, not the recipe as read: a later version may know more keys, whose defaults change nothing.
    if digest_of((folder / RECIPE_YAML).read_bytes()) != record.provenance.recipe_sha256:
        raise RunInvalid(
            f"{folder / RECIPE_YAML} is not the recipe that the run was made with; restore it or train again"
        )
    return record, recipe


def kept_module(folder: Path, recipe: Recipe, labels: tuple[str, ...], recipe_sha256: Digest) -> "Normalized":
    """The weights that a run kept, in evaluation mode on the CPU. Raises RunInvalid."""
    from training.backbones import build

    content = read(folder / BEST)
    if content["identity"]["recipe"] != recipe_sha256 or content["identity"]["labels"] != list(labels):
        raise RunInvalid(f"{folder / BEST} belongs to another recipe or class list; train again")
    module = build(recipe, len(labels))
    module.load_state_dict(content["module"])
    return module.requires_grad_(False).eval()


def provenance_of(recipe: Recipe, weights: str, weights_sha256: Digest | None, data_fingerprint: Digest) -> Provenance:
    """Where a run comes from: its inputs, the packages and commit that ran it, and the time in UTC."""
    return Provenance(
        recipe=recipe.name,
        recipe_sha256=recipe.digest,
        backbone=recipe.backbone.name,
        weights=weights,
        weights_sha256=weights_sha256,
        data_fingerprint=data_fingerprint,
        packages={name: version for name in _PACKAGES if (version := _version(name))},
        commit=_commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that this file belongs to; None for an installed package."""
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        # git is found on the PATH like every other program that a developer runs.
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
