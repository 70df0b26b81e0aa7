"""The model card: what the classifier is for, what it was measured on, and where it must not be trusted."""

import re
from collections.abc import Sequence
from html import escape

from inference.manifest import Calibration
from training.recipe import Recipe
from training.report import SplitReport
from training.run import Record

_NEVER_ASKED = "The recipe has no test split: every figure below comes from photos that also served choices."


def model_card(
    recipe: Recipe, record: Record, reports: Sequence[SplitReport], counts: dict[str, int], calibration: Calibration
) -> str:
    """README.md of a run and of the artifact made from it, as Markdown. `reports` are in the order of importance."""
    labels = ", ".join(map(_code, record.labels))
    return "\n".join(
        [
            f"# {escape(recipe.title, quote=False)}",
            "",
            escape(recipe.description.strip(), quote=False),
            "",
            "## Intended use",
            f"Tells which of {len(record.labels)} classes a photo shows: {labels}.",
            f"The picture's shorter side is made {recipe.preprocessing.resize} pixels and its centre square of "
            f"{recipe.preprocessing.crop} is looked at; what lies outside of it is not seen.",
            "",
            *_measured(reports),
            *_per_class(reports[0]),
            *_calibrated(reports[0], calibration),
            *_limits(record, reports[0]),
            *_training(recipe, record, counts),
        ]
    )


def _measured(reports: Sequence[SplitReport]) -> list[str]:
    lines = [
        "## Measured",
        "| split | photos | accuracy | 95 % interval | macro F1 | calibration error |",
        "|---|---|---|---|---|---|",
    ]
    for report in reports:
        figures = report.metrics
        lines.append(
            f"| {figures.split} | {figures.images} | {figures.accuracy:.2%} | {figures.accuracy_low:.2%} to "
            f"{figures.accuracy_high:.2%} | {figures.macro_f1:.4f} | {figures.ece:.4f} |"
        )
    if not any(report.metrics.split == "test" for report in reports):
        lines += ["", _NEVER_ASKED]
    return [
        *lines,
        "",
        "Intervals are Wilson's. The calibration error is the expected one over 15 equal bins of confidence, after "
        "scaling. Test photos served no choice; validation photos chose the epoch, the temperature and the threshold.",
        "",
    ]


def _per_class(report: SplitReport) -> list[str]:
    return [
        f"### By class, on {report.metrics.split}",
        "| class | precision | recall | F1 | photos |",
        "|---|---|---|---|---|",
        *(
            f"| {_cell(row.label)} | {row.precision:.4f} | {row.recall:.4f} | {row.f1:.4f} | {row.images} |"
            for row in report.per_class
        ),
        "",
    ]


def _calibrated(report: SplitReport, calibration: Calibration) -> list[str]:
    answering = report.accuracy_when_answering
    on_split = f"{answering:.2%} of those answers are right" if answering is not None else "it answers none"
    threshold = (
        f"It abstains when the best probability is below {calibration.threshold:.4f}."
        if calibration.threshold
        else "It never abstains: answering everything met the recipe's target, or no threshold could meet it."
    )
    return [
        "## Calibration",
        f"Probabilities are softmax(logits / {calibration.temperature:.4f}), fitted on {calibration.images} "
        f"{calibration.split} photos, where the calibration error went from {calibration.ece_before or 0:.4f} to "
        f"{calibration.ece_after or 0:.4f}.",
        f"{threshold} On {report.metrics.split} it then answers {report.coverage:.2%} of the photos, and {on_split}.",
        "",
    ]


def _limits(record: Record, report: SplitReport) -> list[str]:
    weakest = min(report.per_class, key=lambda row: row.recall)
    return [
        "## Limits",
        f"- It knows its {len(record.labels)} classes and nothing else: a photo of another thing still gets one of "
        "them, often with a high probability. Abstaining helps little against that.",
        "- The figures hold for photos like those it was measured on. Drawings, close crops, night and infrared "
        "pictures were not measured.",
        f"- The weakest class on {report.metrics.split} is {_code(weakest.label)}: {weakest.recall:.2%} of its photos "
        f"are recognised ({weakest.images} photos, so the figure is coarse).",
        "- One photo, one label: several subjects in a photo are not told apart.",
        "",
    ]


def _training(recipe: Recipe, record: Record, counts: dict[str, int]) -> list[str]:
    provenance = record.provenance
    members = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    stages = "; ".join(
        f"{stage.name}: up to {stage.epochs} epochs of {', '.join(stage.trains)}"
        + (f" without {', '.join(stage.freezes)}" if stage.freezes else "")
        for stage in recipe.stages
    )
    packages = ", ".join(f"{name} {version}" for name, version in provenance.packages.items())
    return [
        "## Training and provenance",
        f"- Photos: {members}; {record.left_out} files were left out. Fingerprint `{provenance.data_fingerprint}`",
        f"- Recipe: `{recipe.name}`, `{provenance.recipe_sha256}`",
        f"- Backbone: `{provenance.backbone}` from {_code(provenance.weights)}"
        + (f", `{provenance.weights_sha256}`" if provenance.weights_sha256 else ""),
        f"- Stages: {stages}",
        f"- Made {provenance.created[:10]} on {record.compute} with {packages}"
        + (f", at commit `{provenance.commit}`" if provenance.commit else ""),
        "",
    ]


def _cell(text: str) -> str:
    """Text in a table: nothing in it is Markdown, and it stays in its cell."""
    return re.sub(r"([\\`|*<\[])", r"\\\1", _one_line(text))


def _code(text: str) -> str:
    """Text as code in a sentence: backslashes escape nothing there, so the fence is longer than any within."""
    text = _one_line(text)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{text}{space}{fence}"


def _one_line(text: str) -> str:
    """Line breaks and other control characters become spaces: a blank line would end the paragraph or the table."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", text)
