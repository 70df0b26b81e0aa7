"""What a stage trains on: augmented photos through the whole network, or cached features through its head."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.augment import mixing, seed_of
from training.backbones import Normalized, head_layers
from training.compute import Compute
from training.dataset import Batch, Photos, TrainingBatches
from training.progress import Progress
from training.recipe import Recipe

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Feed:
    """`train(epoch)` and `validation()` give batches; `part` is the part of a module that takes their inputs.

    `targets` of training batches are class indices, int64 (batch,), or class probabilities, float32 (batch, classes).
    """

    steps: int
    photos: int
    train: Callable[[int], Iterator[Batch]]
    validation: Callable[[], Iterator[Batch]]
    part: Callable[[Normalized], nn.Module]

    @property
    def size(self) -> int:
        """Photos per step, over all processes."""
        return self.photos // self.steps


class Outputs(nn.Module):
    """A part of a network as training calls it: a batch's inputs → its logits, those of auxiliary outputs last."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Each float32 (batch, classes)."""
        return self.part.with_auxiliaries(inputs) if isinstance(self.part, Normalized) else (self.part(inputs),)


def photo_feed(photos: Photos, batches: TrainingBatches, compute: Compute) -> Feed:
    """Augmented photos, mixed where the recipe says so, and plain validation crops."""
    recipe = photos.recipe
    mix = mixing(recipe.augmentation, len(photos.labels))

    def train(epoch: int) -> Iterator[Batch]:
        for images, labels in batches.epoch(epoch):
            yield (images, labels) if mix is None else mix(images, labels)

    return Feed(
        steps=len(batches),
        photos=len(batches) * min(recipe.batch_size, len(photos.splits["train"])),
        train=train,
        validation=lambda: photos.crops(compute.processes.share(photos.splits["validation"]), EVALUATION_BATCH),
        part=lambda module: module,
    )


def feature_feed(recipe: Recipe, compute: Compute, known: Batch, measured: Batch) -> Feed:
    """What the frozen backbone makes of every training and validation photo, computed once on plain crops."""
    train_features, train_labels = known
    features, labels = measured
    size = min(recipe.batch_size, len(train_labels))
    steps = len(train_labels) // size

    def train(epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed_of(recipe.seed, "order", epoch))
        order = torch.randperm(len(train_labels), generator=generator)
        for batch in torch.split(order, size)[:steps]:
            part = compute.processes.share(batch)
            yield train_features[part], train_labels[part]

    return Feed(
        steps=steps,
        photos=steps * size,
        train=train,
        validation=lambda: iter([(compute.processes.share(features), compute.processes.share(labels))]),
        part=lambda module: head_of(module, recipe),
    )


def frozen_features(photos: Photos, module: Normalized, compute: Compute) -> tuple[Batch, Batch]:
    """The features of training and of validation photos, each with their labels."""
    return features_of(photos, "train", module, compute), features_of(photos, "validation", module, compute)


def head_of(module: Normalized, recipe: Recipe) -> nn.Module:
    """The layer that makes logits of features."""
    return module.network.get_submodule(head_layers(recipe.backbone.name)[-1])


@torch.inference_mode()
def features_of(photos: Photos, split: str, module: Normalized, compute: Compute) -> Batch:
    """The head's inputs, float32 (photos, …), and the labels, on the run's device."""
    caught: list[Tensor] = []
    module.eval()
    hook = head_of(module, photos.recipe).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].float()))
    labels = []
    items = compute.processes.share(photos.splits[split])
    with Progress(f"features of {split}", len(items)) as progress, compute.autocast():
        for images, targets in photos.crops(items, EVALUATION_BATCH):
            module(images.to(compute.device))
            labels.append(progress.step(targets, len(targets)))
    hook.remove()
    # Tensors made outside inference mode may take part in autograd.
    with torch.inference_mode(False):
        found = torch.cat(caught).cpu(), torch.cat(labels)
        features, truths = zip(*compute.processes.gather(found), strict=True)
        return torch.cat(features).to(compute.device), torch.cat(truths).to(compute.device)
