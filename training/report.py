"""A split's figures, and the files that hold them: metrics.json and per_class.csv."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from evaluation.figures import ClassFigures, Indices, class_figures, expected_calibration_error
from inference.manifest import Calibration, Metrics
from training.checkpoint import write_atomically
from training.evaluate import Outcome, metrics_of, negative_log_likelihood, sureness

METRICS_JSON, PER_CLASS_CSV = "metrics.json", "per_class.csv"


@dataclass(frozen=True)
class SplitReport:
    """All figures of one split; `nll` and `ece` before and after temperature scaling, `coverage` at the threshold."""

    outcome: Outcome
    metrics: Metrics
    per_class: list[ClassFigures]
    confusion: Indices
    nll_before: float
    nll_after: float
    ece_before: float
    coverage: float
    accuracy_when_answering: float | None

    @classmethod
    def of(cls, outcome: Outcome, labels: tuple[str, ...], calibration: Calibration) -> "SplitReport":
        """Measure a split with a calibration that was fitted elsewhere (or on it: `calibration.split` says)."""
        confidence, right = sureness(outcome.probabilities(calibration.temperature), outcome.truth)
        answered = confidence >= calibration.threshold
        return cls(
            outcome=outcome,
            metrics=metrics_of(outcome, calibration),
            per_class=class_figures(outcome.confusion, labels),
            confusion=outcome.confusion,
            nll_before=negative_log_likelihood(outcome.logits, outcome.truth),
            nll_after=negative_log_likelihood(outcome.logits, outcome.truth, calibration.temperature),
            ece_before=expected_calibration_error(*sureness(outcome.probabilities(), outcome.truth)),
            coverage=float(answered.mean()),
            accuracy_when_answering=float(right[answered].mean()) if answered.any() else None,
        )

    def __str__(self) -> str:
        figures = self.metrics
        return (
            f"{figures.split}: accuracy {figures.accuracy:.2%} (95 % interval {figures.accuracy_low:.2%} to "
            f"{figures.accuracy_high:.2%}, {figures.images} photos), calibration error {self.ece_before:.4f} → "
            f"{figures.ece:.4f}"
        )


def write_metrics(folder: Path, reports: Sequence[SplitReport], calibration: Calibration) -> None:
    """metrics.json: per split, accuracy with its interval and all else; and the calibration."""
    content = {
        "splits": {
            report.metrics.split: report.metrics.model_dump(mode="json", exclude={"split"})
            | {
                "nll_before": report.nll_before,
                "nll_after": report.nll_after,
                "ece_before": report.ece_before,
                "coverage": report.coverage,
                "accuracy_when_answering": report.accuracy_when_answering,
                "per_class": [asdict(figures) for figures in report.per_class],
                "confusion": np.asarray(report.confusion).tolist(),
            }
            for report in reports
        },
        "calibration": calibration.model_dump(mode="json"),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / METRICS_JSON, lambda file: file.write(text.encode("utf-8", "surrogateescape")))


def write_per_class(folder: Path, reports: Sequence[SplitReport]) -> None:
    """per_class.csv: a row per split and class with precision, recall, F1 and the number of photos."""
    with (folder / PER_CLASS_CSV).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "label", "precision", "recall", "f1", "images"])
        for report in reports:
            for row in report.per_class:
                figures = [f"{value:.4f}" for value in (row.precision, row.recall, row.f1)]
                writer.writerow([report.metrics.split, row.label, *figures, row.images])
