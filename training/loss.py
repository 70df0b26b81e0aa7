"""What training minimises: cross-entropy with smoothed labels and weighted classes. Validation uses neither."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.backbones import AUXILIARY_WEIGHTS
from training.dataset import Photos
from training.progress import say


@dataclass(frozen=True)
class Loss:
    """Mean cross-entropy over a batch's photos, in nats; `weights` are float32 (classes,) or None for equal ones.

    The weighted sum is divided by the number of photos, not by their weights: so the gradients of parts of a batch
    add up to those of the whole, and mixed targets count as pure ones do. `auxiliary` is what the loss of each
    auxiliary output counts.
    """

    label_smoothing: float = 0.0
    weights: Tensor | None = None
    auxiliary: float = 0.0

    @classmethod
    def of(cls, photos: Photos, device: torch.device) -> "Loss":
        """The recipe's loss on the training split's classes; weights are said out loud."""
        recipe = photos.recipe
        auxiliary = AUXILIARY_WEIGHTS.get(recipe.backbone.name, 0.0)
        if recipe.class_weights == "none":
            return cls(recipe.label_smoothing, None, auxiliary)
        weights = balanced_weights([item.label for item in photos.splits["train"]], len(photos.labels))
        pairs = (f"{label} {weight:.3g}" for label, weight in zip(photos.labels, weights.tolist(), strict=True))
        say(f"class weights: {', '.join(pairs)}")
        return cls(recipe.label_smoothing, weights.to(device), auxiliary)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits float32 (batch, classes); targets int64 (batch,), or probabilities float32 (batch, classes)."""
        total = functional.cross_entropy(
            logits, targets, self.weights, reduction="sum", label_smoothing=self.label_smoothing
        )
        return total / len(targets)

    def total(self, outputs: Sequence[Tensor], targets: Tensor) -> Tensor:
        """The loss of a network's main logits, and of auxiliary ones after them by their weight."""
        main, *auxiliaries = (self(logits, targets) for logits in outputs)
        return main + self.auxiliary * sum(auxiliaries)


def balanced_weights(labels: Sequence[int], classes: int) -> Tensor:
    """Per class, photos / (classes · photos of the class), float32 (classes,): scikit-learn's "balanced"."""
    counts = torch.bincount(torch.tensor(labels), minlength=classes)
    return len(labels) / (classes * counts)
