"""How often two sets of answers agree."""

import numpy as np

from evaluation.figures import wilson_interval
from inference.manifest import Agreement
from inference.prediction import Logits


def agreement(found: Logits, expected: Logits) -> Agreement:
    """Two sets of logits for the same photos, float32 (photos, classes) each; of none, nothing is known."""
    images, difference = len(found), np.abs(found - expected)
    agreed = int(np.sum(found.argmax(axis=1) == expected.argmax(axis=1)))
    low, high = wilson_interval(agreed, images)
    return Agreement(
        images=images,
        agreement=agreed / max(1, images),
        agreement_low=low,
        agreement_high=high,
        max_difference=float(difference.max(initial=0)),
        mean_difference=float(difference.sum()) / max(1, difference.size),
    )
