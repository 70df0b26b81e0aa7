"""What each step did: steps.csv, which grows by an epoch at a time and only ever holds whole epochs."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from itertools import takewhile
from pathlib import Path
from typing import Any

from inference.errors import RunInvalid

STEPS = "steps.csv"
_LONGEST_ROW = 4096  # bytes: a stage's name is the only part without a small limit

Rates = tuple[float | None, float | None]
"""Learning rates of head and backbone; None where nothing of the kind trains."""


@dataclass(frozen=True)
class Step:
    """One batch, counted from 1 over the whole run: its mean loss in nats, the learning rates it moved weights with.

    The backbone's rate is the largest among its groups.
    """

    step: int
    epoch: int
    stage: str
    loss: float
    head_rate: float | None
    backbone_rate: float | None


def rates_of(groups: Sequence[dict[str, Any]]) -> Rates:
    """The rates of an optimizer's groups, which `name` tells apart: "head", or anything else for the backbone."""
    head = [group["lr"] for group in groups if group["name"] == "head"]
    backbone = [group["lr"] for group in groups if group["name"] != "head"]
    return max(head, default=None), max(backbone, default=None)


def append_steps(path: Path, epoch: int, stage: str, losses: Sequence[float], rates: Sequence[Rates]) -> list[Step]:
    """Add the steps of an epoch that is over, in one write. Raises RunInvalid where the disk takes no more.

    Call it before the checkpoint that makes the epoch count is written: `cut_steps` removes what was too much.
    """
    before = _last_step(path)
    steps = [
        Step(before + number, epoch, stage, loss, *rate)
        for number, (loss, rate) in enumerate(zip(losses, rates, strict=True), start=1)
    ]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if before == 0:
        writer.writerow([field.name for field in fields(Step)])
    writer.writerows(["" if value is None else _text(value) for value in astuple(step)] for step in steps)
    try:
        with path.open("ab" if before else "wb") as file:
            file.write(text.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunInvalid(f"{path} could not be written ({error.strerror}); make room and resume") from error
    return steps


def cut_steps(path: Path, epochs: int) -> None:
    """Remove what stands there of epochs after the first `epochs`: a kill came before they counted."""
    if not path.is_file():
        return
    header, *rows = path.read_bytes().splitlines(keepends=True) or [b""]
    kept = [header, *takewhile(lambda row: _epoch_in(row) <= epochs, rows)] if header.endswith(b"\n") else []
    with path.open("r+b") as file:
        file.truncate(sum(map(len, kept)))


def read_steps(path: Path) -> list[Step]:
    """What `append_steps` wrote; nothing where there is no such file, as in runs of earlier versions.

    Raises RunInvalid for a damaged one.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_step(row) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise RunInvalid(f"{path} is damaged ({error}); remove it, it is a record of curves only") from error


def _step(row: dict[str, str]) -> Step:
    head, backbone = (float(row[key]) if row[key] else None for key in ("head_rate", "backbone_rate"))
    return Step(int(row["step"]), int(row["epoch"]), row["stage"], float(row["loss"]), head, backbone)


def _text(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def _last_step(path: Path) -> int:
    """The number of the last step in the file; 0 where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(-min(_LONGEST_ROW, path.stat().st_size), os.SEEK_END)
            return int(file.read(_LONGEST_ROW).splitlines()[-1].split(b",")[0])
    except (FileNotFoundError, IndexError, ValueError):  # no file, nothing in it, only the header
        return 0


def _epoch_in(line: bytes) -> float:
    """The epoch of a row; infinity for a row that was cut short."""
    parts = line.split(b",")
    whole = line.endswith(b"\n") and len(parts) == len(fields(Step)) and parts[1].isdigit()
    return int(parts[1]) if whole else float("inf")
