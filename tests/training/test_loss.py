import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from training.augment import mixing
from training.loss import Loss, balanced_weights
from training.sections import Augmentation


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0, 0, 1, 2, 2], [2] * 90 + [1] * 9 + [0]])
def test_balanced_weights_are_scikit_learns(labels: list[int]) -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(labels))
    weights = balanced_weights(labels, 3)
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx(expected.tolist())
    # Over the whole training split a photo counts 1 on average: the learning rate keeps its meaning.
    assert float(weights[torch.tensor(labels)].mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_weights_it_is_cross_entropy(smoothing: float) -> None:
    logits, targets = torch.randn(7, 3), torch.tensor([0, 1, 2, 2, 1, 0, 0])
    expected = functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    torch.testing.assert_close(Loss(smoothing)(logits, targets), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weights_follow_indices_and_probabilities_alike(smoothing: float) -> None:
    loss = Loss(smoothing, torch.tensor([0.5, 3.0, 1.0]))
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    torch.testing.assert_close(loss(logits, targets), loss(logits, functional.one_hot(targets, 3).float()))
    if not smoothing:
        each = functional.cross_entropy(logits, targets, reduction="none")
        torch.testing.assert_close(loss(logits, targets), (each * torch.tensor([0.5, 3.0, 1.0])[targets]).mean())


def test_weights_take_part_in_mixing() -> None:
    mix = mixing(Augmentation(mixup=1.0), 3)
    assert mix is not None
    _, targets = mix(torch.zeros(4, 8, 8, 3, dtype=torch.uint8), torch.tensor([0, 1, 2, 1]))
    logits, weights = torch.randn(4, 3), torch.tensor([0.5, 3.0, 1.0])
    expected = -(targets * weights * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(Loss(0.0, weights)(logits, targets), expected)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    loss = Loss(0.1, torch.tensor([0.5, 3.0, 1.0]))
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 2, 0])
    parts = [loss(logits[part], targets[part]) / 3 for part in (slice(0, 2), slice(2, 4), slice(4, 6))]
    torch.testing.assert_close(torch.stack(parts).sum(), loss(logits, targets))
