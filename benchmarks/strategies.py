"""MobileNetV2 by each transfer strategy on each set of photos, seed after seed.

    .venv/bin/python benchmarks/strategies.py --data DATA --weights mobilenet_v2-imagenet1k.pth
    .venv/bin/python benchmarks/strategies.py --table

DATA holds catdog/, flowers/ and hymenoptera/. Every finished run is a line of results/strategies.jsonl, and what stands
there is not run again: stop the script when you like, and start it anew to go on. The second command prints the lines
as Markdown.

Validation chooses the epoch of every run; the test photos are measured once, at its end, and chose nothing: the
settings below are the shipped recipes', with smaller crops and fewer epochs.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from scipy import stats

from evaluation.figures import wilson_interval
from training.finetune import train
from training.history import HISTORY, read_history
from training.recipe import Recipe, load_recipe
from training.run import read_record
from training.sections import Data, Optimizer, Rates, Schedule, Solver, Source, Stage

Line = dict[str, Any]
"""A finished run, as it stands in the results."""

RESULTS = Path(__file__).parent / "results" / "strategies.jsonl"
CROP, RESIZE = 128, 146


def _four(split: str) -> dict[str, str]:
    return {
        "ants": f"hymenoptera/{split}/ants",
        "bees": f"hymenoptera/{split}/bees",
        "cats": f"catdog/{split}/cats",
        "dogs": f"catdog/{split}/dogs",
    }


SETS = {
    "catdog": Data(
        train=Source(folder="catdog/train"),
        validation=Source(folder="catdog/val"),
        test=Source(share=0.5, of="validation"),
    ),
    "flowers": Data(
        train=Source(folder="flowers/train"),
        validation=Source(share=0.1, of="train"),
        test=Source(share=0.1, of="train"),
    ),
    "four": Data(
        train=Source(folders=_four("train"), most={"cats": 130, "dogs": 222}),
        validation=Source(share=0.15, of="train"),
        test=Source(folders=_four("val"), most={"cats": 100, "dogs": 102}),
    ),
}
"""Cats and dogs; five flowers; cats, dogs, ants and bees, few of each."""

RECIPES = {"catdog": "catdog", "flowers": "flowers", "four": "catdog"}
"""The shipped recipe that a set's augmentation, optimiser and rates are taken from."""

FINE_TUNING_EPOCHS = {"catdog": 3, "flowers": 6, "four": 8}
SCRATCH_EPOCHS = {"catdog": 8, "flowers": 8, "four": 15}
STRATEGIES = ("features", "svm", "fine-tuning", "scratch")


def recipe_of(photos: str, strategy: str, seed: int) -> Recipe:
    """The shipped recipe of the set with crops of 128 pixels and the strategy's stages."""
    shipped = load_recipe(RECIPES[photos])
    head, everything = shipped.stages
    pretrained = strategy != "scratch"
    stages = {
        "features": (head.model_copy(update={"epochs": 20}),),
        "svm": (Stage(name="svm", epochs=1, trains=("head",), cached_features=True, solver=Solver(kind="svm")),),
        "fine-tuning": (head, everything.model_copy(update={"epochs": FINE_TUNING_EPOCHS[photos]})),
        "scratch": (
            Stage(
                name="scratch",
                epochs=SCRATCH_EPOCHS[photos],
                rates=Rates(head=0.002),
                optimizer=Optimizer(kind="adamw", weight_decay=0.05),
                schedule=Schedule(warm_up=1.0),
            ),
        ),
    }
    return shipped.model_copy(
        update={
            "name": f"{photos}-{strategy}",
            "data": SETS[photos],
            "backbone": shipped.backbone.model_copy(update={"weights": "imagenet" if pretrained else "none"}),
            "preprocessing": shipped.preprocessing.model_copy(update={"resize": RESIZE, "crop": CROP}),
            "augmentation": shipped.augmentation.model_copy(update={"size": CROP}),
            "stages": stages[strategy],
            "precision": "fp32",
            "seed": seed,
        }
    )


def one_run(photos: str, strategy: str, seed: int, options: argparse.Namespace) -> Line | None:
    """Train one combination in a folder that is dropped afterwards; its line, or None when it was interrupted."""
    recipe = recipe_of(photos, strategy, seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        weights = None if recipe.backbone.weights == "none" else options.weights
        began, worked = time.perf_counter(), time.process_time()
        result = train(recipe, options.data, weights, folder, workers=options.workers)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
        if result.status == "interrupted":
            return None
        record, _ = read_record(folder)
        history = read_history(folder / HISTORY)
    test, validation = record.metrics, record.validation
    assert test
    assert validation
    assert result.best
    return {
        "set": photos,
        "strategy": strategy,
        "seed": seed,
        "test_photos": test.images,
        "test_correct": round(test.accuracy * test.images),
        "validation_photos": validation.images,
        "validation_accuracy": validation.accuracy,
        "epochs": len(history),
        "kept_epoch": result.best.epoch,
        "kept_stage": result.best.stage,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "epoch_seconds": round(sum(epoch.seconds for epoch in history), 1),
        "compute": record.compute,
        "workers": options.workers,
        "data_fingerprint": record.provenance.data_fingerprint,
        "commit": record.provenance.commit,
        "created": record.provenance.created,
    }


def run_all(options: argparse.Namespace) -> None:
    """Every combination whose line is missing, all of a seed before the next seed."""
    for seed, photos, strategy in product(options.seeds, options.sets, options.strategies):
        key = (photos, strategy, seed)
        if any((line["set"], line["strategy"], line["seed"]) == key for line in lines_of(options.results)):
            continue
        print(f"== {photos}, {strategy}, seed {seed}", flush=True)
        line = one_run(photos, strategy, seed, options)
        if line is None:
            return
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def lines_of(results: Path) -> list[Line]:
    """The runs that have finished."""
    if not results.is_file():
        return []
    return [json.loads(line) for line in results.read_text("utf-8").splitlines()]


def table(results: Path) -> str:
    """Per set and strategy: every seed's accuracy with its Wilson interval, and the mean with Student's t interval."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines_of(results):
        groups.setdefault((line["set"], line["strategy"]), []).append(line)
    rows = [
        "| set | strategy | epochs | mean over seeds (95 % t interval) | per seed: right of test photos (95 % Wilson) "
        "| CPU seconds |\n|---|---|---|---|---|---|"
    ]
    for photos, strategy in product(SETS, STRATEGIES):
        runs = sorted(groups.get((photos, strategy), []), key=lambda line: line["seed"])
        if not runs:
            rows.append(f"| {photos} | {strategy} | | not run | | |")
        else:
            seconds = statistics.median(line["cpu_seconds"] for line in runs)
            rows.append(
                f"| {photos} | {strategy} | {runs[0]['epochs']} | {mean_of(runs)} "
                f"| {'; '.join(map(accuracy_of, runs))} | {seconds:.0f} |"
            )
    return "\n".join(rows)


def accuracy_of(line: Line) -> str:
    low, high = wilson_interval(line["test_correct"], line["test_photos"])
    return f"{line['test_correct']} of {line['test_photos']} ({low:.1%}–{high:.1%})"


def mean_of(runs: list[Line]) -> str:
    """The interval says how much another seed would change; with few seeds it is wide, and never beyond 0…1."""
    accuracies = [line["test_correct"] / line["test_photos"] for line in runs]
    mean = statistics.mean(accuracies)
    if len(runs) < 3:
        return f"{mean:.2%}, only {len(runs)} of 3 seeds run"
    quantile = float(stats.t.ppf(0.975, len(runs) - 1))
    margin = quantile * statistics.stdev(accuracies) / math.sqrt(len(runs))
    return f"{mean:.2%} ({max(0.0, mean - margin):.2%}–{min(1.0, mean + margin):.2%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the sets' folders")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of MobileNetV2")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--workers", type=int, help="loader processes; default: the toolkit's")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="train nothing, print the results as Markdown")
    options = parser.parse_args()
    if not options.table:
        if options.data is None or options.weights is None:
            parser.error("name the photos with --data and the first weights with --weights")
        run_all(options)
    print(table(options.results))


if __name__ == "__main__":
    main()
