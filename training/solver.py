"""A head solved instead of trained: scikit-learn's linear SVM or logistic regression on frozen features.

Features are standardised, the strength is chosen on validation, and both the scaling and the coefficients are folded
into the head's Linear layer, so that the network is exported and served like any other.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from evaluation.figures import Indices
from inference.errors import RunInvalid
from training.backbones import lay_out
from training.calibrate import fit_temperature
from training.checkpoint import is_better
from training.evaluate import negative_log_likelihood
from training.feed import head_of
from training.progress import Progress, say
from training.recipe import Recipe
from training.sections import Solver

Floats = NDArray[np.float64]

_ITERATIONS = 10_000


@dataclass(frozen=True)
class Points:
    """Features, float64 (photos, features), and class indices, int64 (photos,), of a split."""

    features: Floats
    labels: Indices

    @classmethod
    def of(cls, batch: tuple[Tensor, Tensor]) -> "Points":
        """The same numbers, on the CPU in double precision. Raises RunInvalid where they are no numbers."""
        features, labels = batch
        if not features.isfinite().all():
            raise RunInvalid(
                "the frozen backbone's features are no numbers; train in precision fp32, or begin with other weights"
            )
        return cls(features.cpu().numpy().astype(np.float64), labels.cpu().numpy())


@dataclass(frozen=True)
class Solution:
    """logits = features · weightᵀ + bias: weight float64 (classes, features) for unscaled features, bias (classes,).

    With several classes logits are scikit-learn's decision values; with two, the difference of both is.
    """

    strength: float
    weight: Floats
    bias: Floats

    def figures(self, points: Points, split: str) -> dict[str, float]:
        """Loss in nats and accuracy on a split, and the loss at the temperature that fits it best."""
        logits = (points.features @ self.weight.T + self.bias).astype(np.float32)
        temperature = fit_temperature(logits, points.labels)
        return {
            f"{split}_loss": negative_log_likelihood(logits, points.labels),
            f"{split}_accuracy": float((logits.argmax(axis=1) == points.labels).mean()),
            "calibrated_loss": negative_log_likelihood(logits, points.labels, temperature),
        }

    @torch.no_grad()
    def fold_into(self, layer: nn.Linear) -> None:
        """Make the layer give these logits."""
        layer.weight.copy_(torch.from_numpy(self.weight))
        layer.bias.copy_(torch.from_numpy(self.bias))


def solve(recipe: Recipe, solver: Solver, train: Points, validation: Points, between: Callable[[], None]) -> Solution:
    """Fit every strength on train and choose the one that is best on validation; `between` is called before each."""
    scaler = StandardScaler().fit(train.features)
    scaled = scaler.transform(train.features)
    best: tuple[Solution, dict[str, float]] | None = None
    with Progress(f"solving {solver.kind}", len(solver.strengths), "strengths") as progress:
        for strength in solver.strengths:
            between()
            estimator = _fitted(recipe, solver.kind, strength, Points(scaled, train.labels))
            solution = _unscaled(strength, estimator, scaler)
            figures = solution.figures(validation, "validation")
            say(
                f"{solver.kind} of strength {strength:g}: validation accuracy {figures['validation_accuracy']:.4f}, "
                f"calibrated loss {figures['calibrated_loss']:.4f}"
            )
            if best is None or is_better(recipe.selection.metric, figures, best[1]):
                best = solution, figures
            progress.step(None)
    assert best is not None  # the recipe has at least one strength
    return best[0]


def check_solver(recipe: Recipe) -> list[str]:
    """What keeps a recipe's head from being solved, found without weights; empty when nothing does."""
    solved = [index for index, stage in enumerate(recipe.stages) if stage.solver.kind != "gradient"]
    if not solved or _is_linear(recipe):
        return []
    return [
        f"stages.{index}.solver: the head of {recipe.backbone.name} is no single linear layer at the network's end; "
        "choose another backbone, leave `backbone.head` out, or train with the gradient solver"
        for index in solved
    ]


def _is_linear(recipe: Recipe) -> bool:
    """Whether the logits are what one linear layer makes of the frozen features."""
    side, given = recipe.preprocessing.crop, []
    module = lay_out(recipe).eval()
    head = head_of(module, recipe)
    head.register_forward_hook(lambda _layer, _inputs, output: given.append(output))
    logits = module(torch.empty(2, side, side, 3, dtype=torch.uint8, device="meta"))
    return isinstance(head, nn.Linear) and head.bias is not None and given[-1] is logits


def _fitted(recipe: Recipe, kind: Literal["gradient", "svm", "logistic"], strength: float, points: Points) -> Any:
    """A fitted LinearSVC (one class against the rest) or LogisticRegression (multinomial)."""
    weights = None if recipe.class_weights == "none" else recipe.class_weights
    if kind == "svm":
        estimator = LinearSVC(C=strength, max_iter=_ITERATIONS, class_weight=weights, random_state=recipe.seed)
    else:
        estimator = LogisticRegression(C=strength, max_iter=_ITERATIONS, class_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(points.features, points.labels)
    if np.max(estimator.n_iter_) >= _ITERATIONS:
        say(f"{kind} of strength {strength:g} has not settled after {_ITERATIONS:,} iterations; weaker ones do")
    return estimator


def _unscaled(strength: float, estimator: Any, scaler: StandardScaler) -> Solution:
    """The estimator behind its scaler as one linear map of the features themselves."""
    weight = estimator.coef_ / scaler.scale_
    bias = estimator.intercept_ - weight @ scaler.mean_
    if len(weight) == 1:  # two classes share one decision value: half for the one, half against the other
        weight, bias = (np.concatenate([-part, part]) / 2 for part in (weight, bias))
    return Solution(strength, weight, bias)
