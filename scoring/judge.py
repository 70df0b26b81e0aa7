"""How good the answers of a scoring run are, where the true classes are known: a sink that compares and counts."""

import csv
import json
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Self

import numpy as np

from evaluation.figures import (
    ClassFigures,
    Indices,
    Reliability,
    class_figures,
    confusion,
    expected_calibration_error,
    f1_scores,
    reliability,
    wilson_interval,
)
from inference.errors import OutputUnwritable, PackageMissing
from scoring.journal import Fingerprint, Part
from scoring.rows import Row
from scoring.truth import Truth

METRICS_JSON, PER_CLASS_CSV, MISTAKES_CSV = "metrics.json", "per_class.csv", "mistakes.csv"
CONFUSION_PNG, CALIBRATION_PNG = "confusion.png", "calibration.png"


@dataclass(frozen=True)
class Judgement:
    """Figures of the pictures that were answered and whose class is known.

    `accuracy` with its 95 % Wilson interval counts answers that abstain as well; `coverage` is the share that does
    not, and `accuracy_when_answering` theirs. `failed` counts the others by error code, `unlabelled` those without a
    class of the model's.
    """

    labels: tuple[str, ...]
    images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    ece: float
    coverage: float
    accuracy_when_answering: float | None
    per_class: list[ClassFigures]
    confusion: Indices
    reliability: Reliability
    failed: dict[str, int]
    unlabelled: int

    def as_json(self, scored: Fingerprint) -> str:
        """All figures, and what was scored by what."""
        flat = {name: value for name, value in self.__dict__.items() if name not in ("labels", "reliability")}
        flat["per_class"] = [asdict(figures) | _interval(figures) for figures in self.per_class]
        flat["confusion"] = self.confusion.tolist()
        return json.dumps({**scored, **flat}, indent=2, ensure_ascii=False) + "\n"

    def __str__(self) -> str:
        lines = [
            f"accuracy {self.accuracy:.2%} (95 % interval {self.accuracy_low:.2%} to {self.accuracy_high:.2%}, "
            f"{self.images:,} photos), macro F1 {self.macro_f1:.4f}, calibration error {self.ece:.4f}"
        ]
        if self.accuracy_when_answering is not None and self.coverage < 1:
            lines.append(f"sure of {self.coverage:.1%}, and right about {self.accuracy_when_answering:.2%} of those")
        lines += [f"{count:,} failed: {code}" for code, count in self.failed.items()]
        if self.unlabelled:
            lines.append(f"{self.unlabelled:,} have no class of this model and were left out")
        return "\n".join(lines)

    def write(self, folder: Path, scored: Fingerprint, what: str) -> None:
        """metrics.json, per_class.csv and the pictures; `what` names the source in their titles."""
        draw = _drawing()
        (folder / METRICS_JSON).write_text(self.as_json(scored), encoding="utf-8", errors="backslashreplace")
        with (folder / PER_CLASS_CSV).open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            rows = [asdict(figures) | _interval(figures) for figures in self.per_class]
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        what = draw.shortened(what[::-1], 24)[::-1]  # the end of a path says more than its beginning
        draw.draw_confusion(folder / CONFUSION_PNG, self.confusion, self.labels, what)
        draw.draw_calibration(folder / CALIBRATION_PNG, {f"On {what}": (self.reliability, self.ece)})


def _interval(figures: ClassFigures) -> dict[str, float]:
    low, high = wilson_interval(round(figures.recall * figures.images), figures.images)
    return {"recall_low": low, "recall_high": high}


def _drawing() -> ModuleType:
    """Raises PackageMissing without matplotlib."""
    try:
        from evaluation import pictures
    except ImportError as error:
        raise PackageMissing(f"pictures of figures need a package ({error}); install petalpaw[pictures]") from error
    return pictures


class Judge:
    """A sink that keeps no row but what must be known of it: 17 bytes each, and mistakes in a file."""

    resumable = False
    place = "figures"

    def __init__(self, truth: Truth, labels: tuple[str, ...], folder: Path | None = None) -> None:
        """`folder` is made for mistakes.csv. Raises OutputUnwritable where it holds something, PackageMissing."""
        self._truth = truth
        self._labels = labels
        self._true, self._predicted = array("i"), array("i")
        self._confidence, self._sure = array("d"), array("b")
        self._failed: Counter[str] = Counter()
        self._unlabelled = 0
        self._folder = folder
        self._open = ExitStack()
        self.scored: Fingerprint = {}
        if folder is not None:
            _drawing()  # missed now, not after an hour
            if folder.exists() and any(folder.iterdir()):
                raise OutputUnwritable(f"{folder} holds something already; name a new folder")

    def begin(self, fingerprint: Fingerprint, columns: Sequence[str]) -> Sequence[Part]:  # noqa: ARG002 – of all sinks
        """Open mistakes.csv. Raises OSError."""
        self.scored = fingerprint
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / MISTAKES_CSV).open("w", newline="", encoding="utf-8")
            self._mistakes = csv.writer(self._open.enter_context(file))
            self._mistakes.writerow(["id", "path", "truth", "label", "probability", "abstained", "error_code"])
        return ()

    def write(self, row: Row) -> None:
        """Compare a row with its true class."""
        truth = self._truth(row)
        if row.error_code is not None:
            self._failed[row.error_code] += 1
        elif truth is None:
            self._unlabelled += 1
        else:
            self._true.append(truth)
            self._predicted.append(row.top_k[0].class_index)
            self._confidence.append(row.top_k[0].probability)
            self._sure.append(not row.abstained)
        if self._folder is not None and (truth is None or row.label != self._labels[truth]):
            label = None if truth is None else self._labels[truth]
            self._mistakes.writerow(
                [row.id, row.path, label, row.label, row.probability, row.abstained, row.error_code]
            )

    def commit_part(self, inputs: str, witnesses: Sequence[str] = ()) -> None:
        """Nothing is held back."""

    def commit(self) -> None:
        """Nothing is held back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._open.close()

    def judgement(self) -> Judgement:
        """The figures of all rows so far."""
        truth, predicted = np.array(self._true, np.int64), np.array(self._predicted, np.int64)
        confidence, sure = np.array(self._confidence), np.array(self._sure, bool)
        right = predicted == truth
        counts = confusion(truth, predicted, len(self._labels))
        low, high = wilson_interval(int(right.sum()), len(right))
        return Judgement(
            labels=self._labels,
            images=len(right),
            accuracy=float(right.mean()) if len(right) else 0.0,
            accuracy_low=low,
            accuracy_high=high,
            macro_f1=float(f1_scores(counts).mean()),
            ece=expected_calibration_error(confidence, right),
            coverage=float(sure.mean()) if len(sure) else 0.0,
            accuracy_when_answering=float(right[sure].mean()) if sure.any() else None,
            per_class=class_figures(counts, self._labels),
            confusion=counts,
            reliability=reliability(confidence, right),
            failed=dict(self._failed),
            unlabelled=self._unlabelled,
        )
