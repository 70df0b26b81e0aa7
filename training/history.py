"""What each epoch did: one row, and history.csv of all of them."""

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from inference.errors import RunInvalid
from training.checkpoint import write_atomically

HISTORY = "history.csv"


@dataclass(frozen=True)
class Epoch:
    """One epoch. Losses in nats, `calibrated_loss` on validation at the temperature that fits it best; `waiting` is
    the share of the epoch's training time spent waiting for data; `rate` is the largest learning rate, or the strength
    that a solver chose.
    """

    epoch: int
    stage: str
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    calibrated_loss: float
    rate: float
    images_per_second: float
    waiting: float
    seconds: float
    kept: bool

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch} ({self.stage}): train loss {self.train_loss:.4f}, accuracy {self.train_accuracy:.4f}; "
            f"validation loss {self.validation_loss:.4f} (calibrated {self.calibrated_loss:.4f}), "
            f"accuracy {self.validation_accuracy:.4f}{' (kept)' if self.kept else ''}; "
            f"{self.images_per_second:.0f} photos/s, {self.waiting:.1%} waiting for data"
        )


def write_history(path: Path, epochs: list[Epoch]) -> None:
    """history.csv, whole and atomically."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Epoch)], lineterminator="\n")
    writer.writeheader()
    for epoch in epochs:
        writer.writerow(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in asdict(epoch).items()}
        )
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def read_history(path: Path) -> list[Epoch]:
    """What `write_history` wrote. Raises RunInvalid."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_epoch(row) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError) as error:
        raise RunInvalid(f"{path} is missing or damaged ({error}); train again") from error


def _epoch(row: dict[str, str]) -> Epoch:
    figures = {name: float(row[name]) for name in Epoch.__dataclass_fields__ if name not in ("epoch", "stage", "kept")}
    return Epoch(epoch=int(row["epoch"]), stage=row["stage"], kept=row["kept"] == "True", **figures)
