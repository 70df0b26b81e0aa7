"""How good a classifier is on a split: figures with intervals, from logits alone."""

from dataclasses import dataclass

import numpy as np
import torch

from evaluation.figures import (
    Flags,
    Indices,
    Probabilities,
    confusion,
    expected_calibration_error,
    f1_scores,
    wilson_interval,
)
from inference.manifest import Calibration, Metrics
from inference.prediction import Logits, probabilities
from training.backbones import Normalized
from training.compute import Compute
from training.dataset import Photos
from training.progress import Progress


@dataclass(frozen=True)
class Outcome:
    """Logits, float32 (photos, classes), and true class indices, int64 (photos,), of a split in its order."""

    split: str
    logits: Logits
    truth: Indices

    def probabilities(self, temperature: float = 1.0) -> Probabilities:
        """softmax(logits / temperature), float64 (photos, classes)."""
        return probabilities(self.logits, temperature)

    @property
    def predicted(self) -> Indices:
        """The most probable class of each photo."""
        best: Indices = self.logits.argmax(axis=1)
        return best

    @property
    def correct(self) -> int:
        """How many photos were classified rightly."""
        return int(np.sum(self.predicted == self.truth))

    @property
    def confusion(self) -> Indices:
        """Counts, int64 (classes, classes): row the true class, column the predicted one."""
        return confusion(self.truth, self.predicted, self.logits.shape[1])


@torch.inference_mode()
def infer(module: Normalized, photos: Photos, split: str, compute: Compute, batch_size: int = 64) -> Outcome:
    """Run a split through the module in float32, as the exported artifact will; the module is left in eval mode."""
    module.eval().to(compute.device)
    items = photos.splits[split]
    logits = []
    with Progress(f"evaluating {split}", len(items)) as progress:
        for images, labels in photos.crops(items, batch_size):
            logits.append(progress.step(module(images.to(compute.device)).float().cpu().numpy(), len(labels)))
    return Outcome(split, np.concatenate(logits), np.array([item.label for item in items]))


def sureness(predicted: Probabilities, truth: Indices) -> tuple[Probabilities, Flags]:
    """The probability of each answer, and whether the answer is right."""
    return predicted.max(axis=1), predicted.argmax(axis=1) == truth


def metrics_of(outcome: Outcome, calibration: Calibration) -> Metrics:
    """Accuracy with its 95 % Wilson interval, macro F1 (classes weigh equally) and calibrated ECE."""
    images = len(outcome.truth)
    low, high = wilson_interval(outcome.correct, images)
    return Metrics(
        split=outcome.split,
        images=images,
        accuracy=outcome.correct / images,
        accuracy_low=low,
        accuracy_high=high,
        macro_f1=float(f1_scores(outcome.confusion).mean()),
        ece=expected_calibration_error(*sureness(outcome.probabilities(calibration.temperature), outcome.truth)),
    )


def negative_log_likelihood(logits: Logits, truth: Indices, temperature: float = 1.0) -> float:
    """Mean of -log softmax(logits / temperature) at the true class, in nats."""
    scaled = logits.astype(np.float64) / temperature
    top = scaled.max(axis=1)
    normaliser = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float(np.mean(normaliser - scaled[np.arange(len(truth)), truth]))
