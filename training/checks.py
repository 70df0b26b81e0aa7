"""What is doubtful about the photos themselves: said before training, written to checks.csv, changing nothing."""

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from training.dataset import Photos
from training.duplicates import TOO_MANY, hashes_of, near_pairs
from training.progress import say
from training.run import CHECKS_CSV
from training.splits import OTHER_CLASS, Item

FEW = {"train": 20, "validation": 5}
"""Photos of a class below which a split is said to have few."""

UNEVEN = 10
"""Times that the largest class may outnumber the smallest."""

_MOST_LINES = 20


@dataclass(frozen=True)
class Finding:
    """One doubt: what kind, about which class or photo, the other photo that it concerns, and what to do."""

    kind: str
    about: str
    other: str
    advice: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.about}{f' and {self.other}' if self.other else ''}: {self.advice}"


def check_photos(photos: Photos) -> list[Finding]:
    """Small and uneven classes, files with two labels, and photos that nearly stand in two splits."""
    return [*_sizes(photos), *_two_labels(photos), *_near(photos)]


def say_findings(findings: Sequence[Finding]) -> None:
    """The first findings of each kind on stderr."""
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_kind[finding.kind].append(finding)
    for kind, members in by_kind.items():
        for finding in members[:_MOST_LINES]:
            say(f"warning, {finding}")
        if len(members) > _MOST_LINES:
            say(f"warning, {kind}: {len(members) - _MOST_LINES:,} more stand in {CHECKS_CSV}")


def write_findings(path: Path, findings: Sequence[Finding]) -> None:
    """checks.csv: one row per finding, all of them."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Finding)])
        writer.writerows(astuple(finding) for finding in findings)


def _sizes(photos: Photos) -> list[Finding]:
    findings = []
    counts = {split: Counter(item.label for item in photos.splits[split]) for split in FEW}
    for split, few in FEW.items():
        findings += [
            Finding(
                "few photos",
                label,
                "",
                f"{counts[split][index]} {split} photos, fewer than {few}; its figures will be coarse, add photos",
            )
            for index, label in enumerate(photos.labels)
            if counts[split][index] < few
        ]
    (most, largest), *_, (least, smallest) = counts["train"].most_common()
    if largest > UNEVEN * smallest:
        advice = (
            f"{smallest} training photos against {largest} of {photos.labels[most]}; rare classes will be overlooked, "
            "add photos or set class_weights: balanced"
        )
        findings.append(Finding("uneven classes", photos.labels[least], "", advice))
    return findings


def _two_labels(photos: Photos) -> list[Finding]:
    """The same file in two classes, within a split and across them."""
    first: dict[str, Item] = {}
    findings = []
    for item in (item for items in photos.splits.values() for item in items):
        other = first.setdefault(item.sha256, item)
        if other.label != item.label:
            names = " and ".join(photos.labels[each.label] for each in (other, item))
            advice = f"one file, two labels, {names}; remove the wrong one"
            findings.append(Finding("two labels", item.path, other.path, advice))
    return findings + [
        Finding("two labels", entry.path, "", f"{entry.detail}; remove the wrong one")
        for entry in photos.left_out
        if OTHER_CLASS in entry.detail
    ]


def _near(photos: Photos) -> list[Finding]:
    """Training photos that are nearly those that the network is measured on, and validation photos nearly of test."""
    hashes = {split: hashes_of(photos, split) for split in photos.splits}
    measured = tuple(split for split in photos.splits if split != "train")
    findings = []
    for split, others in (("train", measured), ("validation", measured[1:])):
        pairs, count = near_pairs(photos, hashes, split, others), len(photos.splits[split])
        if len(pairs) > TOO_MANY * count:
            advice = (
                f"{len(pairs):,} of {count:,} photos are nearly photos of other splits; either these are frames of one "
                "film, which belong into one split, or pictures too alike for this check, as digits and drawings are"
            )
            findings.append(Finding("near duplicates", split, "", advice))
            continue
        findings += [
            Finding(
                "near duplicates",
                pair.photo.path,
                pair.other.path,
                f"{pair.distance} of 64 bits differ, in two splits; remove one, or set data.near_duplicates: drop",
            )
            for pair in pairs
        ]
    return findings
