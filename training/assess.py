"""The end of a run: its kept weights measured, calibrated, and laid down in the run folder with their story."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from evaluation.figures import reliability
from evaluation.pictures import draw_calibration, draw_confusion
from inference.errors import DataInvalid, RunInvalid
from inference.manifest import Calibration
from training import pictures
from training.augment import Augment, seed_of
from training.backbones import Normalized
from training.calibrate import calibrate
from training.card import model_card
from training.checkpoint import BEST, write_atomically
from training.checks import check_photos, say_findings, write_findings
from training.compute import Compute
from training.dataset import CACHE_BYTES, Photos, open_photos, write_left_out
from training.evaluate import infer, sureness
from training.history import HISTORY, read_history
from training.inspection import Inspection, spared
from training.lock import held
from training.page import REPORT_HTML, write_page
from training.pixels import PixelStore
from training.progress import say
from training.recipe import Recipe
from training.report import SplitReport, write_metrics, write_per_class
from training.run import (
    BATCH_PNG,
    CHECKS_CSV,
    LEFT_OUT_CSV,
    PIXELS,
    RECIPE_YAML,
    SPLITS_CSV,
    Record,
    Run,
    kept_module,
    provenance_of,
    read_record,
)
from training.sections import Normalization
from training.splits import write_splits
from training.steps import STEPS, read_steps
from training.weights import Filled

_TILES = 18


def begin(
    folder: Path, recipe: Recipe, photos: Photos, filled: Filled, normalization: Normalization, compute: Compute
) -> None:
    """Lay down what the run is: its recipe, a batch of what it will see, and where it comes from. Raises RunInvalid.

    What is doubtful about the photos is said and written beside. run.json comes last: a folder without it is not a run,
    and is begun anew.
    """
    write_atomically(folder / RECIPE_YAML, lambda file: file.write(recipe.to_yaml().encode()))
    write_splits(folder / SPLITS_CSV, photos.splits, photos.labels)
    write_left_out(folder / LEFT_OUT_CSV, photos.left_out)
    findings = check_photos(photos)
    say_findings(findings)
    write_findings(folder / CHECKS_CSV, findings)
    _draw_batch(folder, recipe, photos)
    Record(
        labels=photos.labels,
        data_root=str(photos.root),
        compute=str(compute),
        weights=asdict(filled),
        normalization=normalization,
        left_out=len(photos.left_out),
        provenance=provenance_of(recipe, filled.source, filled.sha256, photos.fingerprint),
    ).write(folder)


def assess(folder: Path, photos: Photos, compute: Compute) -> Record:
    """Measure the kept weights on validation and test, calibrate on validation, and finish the run folder.

    Test photos are run through the network here and nowhere else, after every choice was made. Raises RunInvalid for
    a run that is damaged, or whose weights give answers that are no numbers.
    """
    record, recipe = read_record(folder)
    module = kept_module(folder, recipe, record.labels, record.provenance.recipe_sha256)
    outcomes = {
        split: infer(module, photos, split, compute) for split in ("validation", "test") if split in photos.splits
    }
    for split, outcome in outcomes.items():
        if not np.isfinite(outcome.logits).all():
            raise RunInvalid(
                f"the weights kept in {folder / BEST} give answers that are no numbers on {split}; train again with "
                "lower learning rates"
            )
    calibration = calibrate(outcomes["validation"], recipe.abstention.target_accuracy)
    reports = {split: SplitReport.of(outcome, record.labels, calibration) for split, outcome in outcomes.items()}
    record = record.model_copy(
        update={
            "status": "finished",
            "calibration": calibration,
            "validation": reports["validation"].metrics,
            "metrics": reports["test"].metrics if "test" in reports else None,
        }
    )
    in_order = list(reversed(reports.values()))  # test first: it is the honest one
    try:
        _lay_down(folder, record, recipe, module, photos, in_order, calibration)
    except OSError as error:
        raise RunInvalid(
            f"not all figures of {folder} could be written ({error}); its weights are whole: make room, or correct "
            f"what is wrong, and run `petalpaw evaluate {folder}`"
        ) from error
    for report in in_order:
        say(str(report))
    return record


def _lay_down(
    folder: Path,
    record: Record,
    recipe: Recipe,
    module: Normalized,
    photos: Photos,
    in_order: list[SplitReport],
    calibration: Calibration,
) -> None:
    """Figures, pictures, card and page; the record that says they are there comes last."""
    write_metrics(folder, in_order, calibration)
    write_per_class(folder, in_order)
    _draw(folder, photos, in_order[0], calibration)
    shown = in_order[0].outcome
    Inspection(folder, module, photos, shown, shown.probabilities(calibration.temperature)).draw()
    counts = {split: len(items) for split, items in photos.splits.items()}
    card = model_card(recipe, record, in_order, counts, calibration)
    (folder / "README.md").write_text(card, encoding="utf-8", errors="surrogateescape")
    with spared(REPORT_HTML):
        write_page(folder, recipe, record, in_order, counts, calibration)
    record.write(folder)


def assess_again(
    folder: Path, data_root: Path | None = None, device: str = "auto", cache_bytes: int = CACHE_BYTES
) -> Run:
    """Measure a finished or stopped run anew, on the photos it was trained on. Raises RunInvalid, DataInvalid."""
    record, recipe = read_record(folder)
    root = data_root or Path(record.data_root)
    with held(folder), PixelStore(folder / PIXELS, cache_bytes) as store:
        photos = open_photos(recipe, root, store)
        if photos.fingerprint != record.provenance.data_fingerprint:
            raise DataInvalid(
                f"the photos under {root} are not those of the run in {folder}; restore them, or train a new run"
            )
        assess(folder, photos, Compute.plan(device, recipe))
    return Run.open(folder)


def _draw_batch(folder: Path, recipe: Recipe, photos: Photos) -> None:
    augment, items = Augment(recipe.augmentation), photos.splits["train"]
    some = [items[index * len(items) // min(_TILES, len(items))] for index in range(min(_TILES, len(items)))]
    crops = [
        augment(photos.image(item), seed_of(recipe.seed, "picture", index)).numpy() for index, item in enumerate(some)
    ]
    pictures.draw_batch(folder / BATCH_PNG, crops, [photos.labels[item.label] for item in some])


def _draw(folder: Path, photos: Photos, report: SplitReport, calibration: Calibration) -> None:
    outcome, split = report.outcome, report.metrics.split
    before, after = outcome.probabilities(), outcome.probabilities(calibration.temperature)
    pictures.draw_curves(folder / "curves.png", read_history(folder / HISTORY))
    if steps := read_steps(folder / STEPS):
        pictures.draw_iterations(folder / "iterations.png", steps)
    draw_confusion(folder / "confusion.png", report.confusion, photos.labels, split)
    draw_calibration(
        folder / "calibration.png",
        {
            f"On {split}, before scaling": (reliability(*sureness(before, outcome.truth)), report.ece_before),
            "after scaling": (reliability(*sureness(after, outcome.truth)), report.metrics.ece),
        },
    )
    wrong = pictures.worst_mistakes(after, outcome.truth, _TILES)
    items = [photos.splits[split][index] for index in wrong]
    captions = [
        pictures.Mistake(
            photos.labels[item.label], photos.labels[int(after[index].argmax())], float(after[index].max()), item.path
        )
        for index, item in zip(wrong, items, strict=True)
    ]
    title = f"The surest mistakes on {split}: true label → answer, its probability, file"
    pictures.draw_mistakes(folder / "mistakes.png", [photos.crop(item) for item in items], captions, title)
