"""Photos and folders that look mislabelled, by what a classifier of the frozen features says that has not seen them.

It is fitted on the other folds of a cross-validation, after Northcutt et al. 2021, "Confident
Learning", who find label errors by out-of-sample probabilities.
"""

import csv
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluation.figures import Indices, Probabilities, wilson_interval
from training import pictures
from training.dataset import Batch, Photos
from training.progress import Progress, say
from training.solver import Points
from training.splits import Item

SUSPECTS_CSV, SUSPECTS_PNG = "suspects.csv", "suspects.png"

DOUBTED = 0.05
"""Probability of a photo's own label below which it is a suspect."""

ALIKE = 0.4
"""Share of two classes' photos taken for one another from which the two cannot be told apart; 0.5 is guessing."""

TOO_MANY = 0.5
"""Share of suspects above which not the labels are in doubt, but the features."""

_FOLDS, _MOST_PHOTOS, _TILES, _MOST_LINES = 5, 20_000, 18, 20
_STRENGTH = 1.0


@dataclass(frozen=True)
class Suspect:
    """A photo whose own label is improbable, how probable it is, and the class that it looks like."""

    item: Item
    probability: float
    looks_like: int
    certainty: float


def find_suspects(photos: Photos, train: Points, validation: Points, seed: int) -> tuple[list[Suspect], list[str]]:
    """Suspects among training and validation photos, the most doubtful first, and what is to be said about classes.

    Features must be of a backbone that knows something: random weights find nothing. Of more than 20,000 photos only
    so many are looked at. Classes of one photo cannot be cross-validated: then nothing is found.
    """
    labels, items = photos.labels, [*photos.splits["train"], *photos.splits["validation"]]
    features = np.concatenate([train.features, validation.features])
    looked = np.sort(np.random.default_rng(seed).permutation(len(items))[:_MOST_PHOTOS])
    points = Points(features[looked], np.concatenate([train.labels, validation.labels])[looked])
    if np.bincount(points.labels, minlength=len(labels)).min() < 2:
        return [], []
    unseen = _out_of_fold(points, seed)
    answers, own = unseen.argmax(axis=1), unseen[np.arange(len(looked)), points.labels]
    doubted = np.flatnonzero((own < DOUBTED) & (answers != points.labels))
    suspects = [
        Suspect(items[looked[row]], float(own[row]), int(answers[row]), float(unseen[row].max()))
        for row in sorted(doubted, key=lambda row: own[row])
    ]
    seen = _fitted(train).predict(validation.features)
    # Swapped validation folders would otherwise make two classes look alike.
    own_split = looked < len(train.labels)
    alike = _alike(points.labels[own_split], answers[own_split], labels)
    return suspects, [*_swapped(validation, seen, labels), *alike]


def report_suspects(folder: Path, photos: Photos, known: Batch, measured: Batch) -> None:
    """Say what the features tell, list every suspect in suspects.csv and show the first in suspects.png."""
    if known[0].ndim > 2:  # a head that is a convolution sees a map, not a point
        return
    suspects, classes = find_suspects(photos, Points.of(known), Points.of(measured), photos.recipe.seed)
    for line in classes:
        say(f"warning, {line}")
    _say_suspects(suspects, len(known[1]) + len(measured[1]), photos.labels)
    with (folder / SUSPECTS_CSV).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "probability", "looks_like"])
        writer.writerows(
            [each.item.path, photos.labels[each.item.label], f"{each.probability:.4g}", photos.labels[each.looks_like]]
            for each in suspects
        )
    first = suspects[:_TILES]
    captions = [
        pictures.Mistake(photos.labels[each.item.label], photos.labels[each.looks_like], each.certainty, each.item.path)
        for each in first
    ]
    crops = [photos.crop(each.item) for each in first]
    title = "Mislabelled? Label → what it looks like, its probability, file"
    pictures.draw_mistakes(folder / SUSPECTS_PNG, crops, captions, title)


def _say_suspects(suspects: Sequence[Suspect], photos: int, labels: Sequence[str]) -> None:
    """The first of them; of so many that the doubt falls on the features, only how many they are."""
    if len(suspects) > TOO_MANY * photos:
        say(
            f"warning, {len(suspects):,} of {photos:,} photos are taken for another class: rather than wrong labels, "
            f"these are classes that the features cannot tell apart from so few photos; {SUSPECTS_CSV} lists them"
        )
        return
    for suspect in suspects[:_MOST_LINES]:
        item = suspect.item
        say(
            f"warning, mislabelled? {item.path}: {labels[item.label]} with probability "
            f"{suspect.probability:.1%}, looks like {labels[suspect.looks_like]}"
        )
    if suspects:
        say(f"{len(suspects)} suspicious photos are listed in {SUSPECTS_CSV}; {SUSPECTS_PNG} shows the first")


def _out_of_fold(points: Points, seed: int) -> Probabilities:
    """Each photo's class probabilities by a model that was fitted without it, float64 (photos, classes)."""
    folds = min(_FOLDS, int(np.bincount(points.labels).min()))
    found = np.zeros((len(points.labels), int(points.labels.max()) + 1))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with Progress("looking for wrong labels", folds, "folds") as progress:
        for rest, fold in splitter.split(points.features, points.labels):
            model = _fitted(Points(points.features[rest], points.labels[rest]))
            found[fold] = progress.step(model.predict_proba(points.features[fold]))
    return found


def _fitted(points: Points) -> Any:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly settled is good enough to look for doubts
        return model.fit(points.features, points.labels)


def _swapped(validation: Points, seen: Indices, labels: Sequence[str]) -> list[str]:
    """Validation folders of which surely (95 %) more than half look like one other training class."""
    lines = []
    for index, label in enumerate(labels):
        answers = seen[validation.labels == index]
        looks = np.bincount(answers, minlength=len(labels))
        other = int(looks.argmax())
        if other != index and wilson_interval(int(looks[other]), len(answers))[0] > 0.5:
            share = looks[other] / len(answers)
            lines.append(
                f"class folder {label!r}: {share:.0%} of its validation photos look like the training photos of "
                f"{labels[other]!r}; are the folders swapped?"
            )
    return lines


def _alike(truth: Indices, answers: Indices, labels: Sequence[str]) -> list[str]:
    """Pairs of classes whose photos are taken for one another about as often as by guessing."""
    counts = np.zeros((len(labels), len(labels)), int)
    np.add.at(counts, (truth, answers), 1)
    lines = []
    for one in range(len(labels)):
        for two in range(one + 1, len(labels)):
            both = counts[np.ix_((one, two), (one, two))]
            wrong = (both[0, 1] + both[1, 0]) / max(both.sum(), 1)
            if both.sum() >= 20 and wrong > ALIKE:
                lines.append(
                    f"classes {labels[one]!r} and {labels[two]!r} cannot be told apart ({wrong:.0%} are taken for the "
                    "other); do both folders hold the same things?"
                )
    return lines
