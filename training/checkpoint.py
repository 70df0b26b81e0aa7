"""A run's state on disk: written beside and renamed, read without unpickling code, refused where it does not belong."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch

from inference.errors import RunInvalid
from inference.manifest import Digest

FORMAT_VERSION = 1

LAST, BEST, RUN_JSON = "last.pt", "best.pt", "run.json"


@dataclass(frozen=True)
class Identity:
    """What a checkpoint must agree on with the run that reads it."""

    recipe: Digest
    backbone: str
    labels: list[str]
    data: Digest


@dataclass
class Checkpoint:
    """Everything that training needs to go on as if it had never stopped.

    `stage` and `stage_epoch` count what is complete. Random numbers need no state: every epoch seeds its generators
    from the recipe's seed and its number. `best` is None until a stage has been validated.
    """

    identity: Identity
    stage: int = 0
    stage_epoch: int = 0
    stage_over: bool = False
    module: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Any] | None = None
    average_updates: int = 0
    optimizer: dict[str, Any] | None = None
    scaler: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically: a kill or a full disk leaves the previous one. Raises RunInvalid."""
    content = _fields(checkpoint) | {"format_version": FORMAT_VERSION, "identity": asdict(checkpoint.identity)}
    write_atomically(path, lambda file: torch.save(content, file))


def load(path: Path, identity: Identity) -> Checkpoint:
    """Read a checkpoint. Raises RunInvalid: missing, damaged, or of another recipe, backbone, class list or data."""
    content = read(path)
    found = content.pop("identity")
    labels = {
        "backbone": "another backbone",
        "labels": "another class list",
        "recipe": "another recipe",
        "data": "other photos",
    }
    for key, what in labels.items():
        wanted = getattr(identity, key)
        if found.get(key) != wanted:
            raise RunInvalid(
                f"{path} belongs to {what}: it has {found.get(key)!r}, this run has {wanted!r}; "
                "resume with what the run began with, or train into a new folder"
            )
    try:
        return Checkpoint(identity=identity, **content)
    except TypeError as error:
        raise RunInvalid(f"{path} lacks a part of a checkpoint ({error}); train into a new folder") from error


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file, tensors on the CPU. Raises RunInvalid."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunInvalid(f"{path} does not exist; train first, or check the run folder's path") from None
    except Exception as error:  # torch's reader raises KeyError, UnpicklingError, RuntimeError, … on damaged files
        raise RunInvalid(f"{path} is damaged or not a checkpoint ({type(error).__name__}); train again") from error
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if version != FORMAT_VERSION or not isinstance(content, dict):
        raise RunInvalid(f"{path} has format version {version!r}, this Petalpaw reads {FORMAT_VERSION}; train again")
    return content


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write beside, flush to the disk, rename. Raises RunInvalid, leaving the file that was there."""
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    # torch's zip writer raises RuntimeError where the disk is full, and the reason is its context.
    except (OSError, RuntimeError) as error:
        beside.unlink(missing_ok=True)
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        begun = (path.parent / RUN_JSON).exists()
        way = "what was saved before is whole: make room and resume" if begun else "make room and begin again"
        raise RunInvalid(f"{path} could not be written ({reason}); {way}") from error


def _fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields as they are: `asdict` would copy every tensor."""
    return {name: getattr(checkpoint, name) for name in checkpoint.__dataclass_fields__}


Better = Literal["accuracy", "loss"]


def is_better(metric: Better, new: dict[str, Any], best: dict[str, Any] | None) -> bool:
    """Whether an epoch's validation figures beat the best so far; equal accuracies are decided by the loss.

    The loss is the calibrated one: a temperature is fitted at the end anyway, and label smoothing, which makes
    answers timid, would otherwise look like an error.
    """
    if best is None:
        return True
    if metric == "loss":
        return bool(new["calibrated_loss"] < best["calibrated_loss"])
    return bool(
        (new["validation_accuracy"], -new["calibrated_loss"]) > (best["validation_accuracy"], -best["calibrated_loss"])
    )
