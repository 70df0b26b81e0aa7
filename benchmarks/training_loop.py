"""Our training loop against one in the shape of torchvision's reference (references/classification), on a CPU.

    .venv/bin/python benchmarks/training_loop.py --data DATA/flowers/train

The reference reads an ImageFolder of PIL images through the training preset's transforms (random crop, flip, tensor,
normalise) and a DataLoader, trains in float32 with SGD, and reads loss, top-1 and top-5 accuracy of every batch, as
torchvision's script does; it gets the best of its numbers of worker processes. Ours is `petalpaw train`'s own code on a
recipe that asks for the same: the same network, photos, batch, crops and optimizer, no label smoothing, no averaging.

A round is one epoch over the same photos by a fresh network in a process of its own, since how memory is allocated is
a process's setting; starting of loader processes is included, validation and checkpoints are not. Wall time counts, so
nothing else may run on the machine. With --cpu-time the process's own CPU seconds count instead, one thread on one core
loads and trains, and a machine that others use will do. The variants take turns within each round; trials of the
reference come first and warm up. Medians are printed as Markdown.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import models
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from inference import memory
from inference.budget import whole_cores
from inference.preprocessing import Preprocessing
from training.compute import Compute
from training.dataset import CACHE_BYTES, open_photos
from training.finetune import train
from training.history import HISTORY, read_history
from training.pixels import PixelStore
from training.recipe import Recipe
from training.sections import Augmentation, Backbone, Data, Normalization, Optimizer, Rates, Schedule, Source, Stage

NETWORK, BATCH, RATE, MOMENTUM, DECAY = "mobilenet_v2", 32, 0.01, 0.9, 1e-4
SCALE = (0.08, 1.0)
"""Share of the photo in a random crop: the reference's."""

EPOCHS = (6, 14)
"""Epochs of the shipped recipes on photos, catdog and flowers: what the decoding at the start is shared out over."""

REFERENCE, OURS = "reference", "ours as shipped"
VALIDATION_PER_CLASS = 2

Clock = Callable[[], float]
Loop = Callable[[], float]
"""Trains one epoch and gives its photos per second."""

T = TypeVar("T")


@contextmanager
def photos_of(source: Path, photos: int) -> Iterator[Path]:
    """A folder with `train` and `validation`, as many photos of each class."""
    with tempfile.TemporaryDirectory() as temporary:
        root, classes = Path(temporary), sorted(path for path in source.iterdir() if path.is_dir())
        share = photos // len(classes)
        for folder in classes:
            files = sorted(folder.iterdir())[: share + VALIDATION_PER_CLASS]
            for split, members in (("train", files[:share]), ("validation", files[share:])):
                (root / split / folder.name).mkdir(parents=True)
                for file in members:
                    shutil.copy(file, root / split / folder.name)
        yield root


def reference(
    data: Path, size: int, workers: int, clock: Clock, channels_last: bool = False, kept: bool = False
) -> float:
    """An epoch of the reference's loop with its own network. `kept`: with the memory that a step has freed."""
    torch.set_num_threads(whole_cores())
    if kept:
        memory.keep()
    normalization = Normalization()
    preset = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=SCALE),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(normalization.mean, normalization.std),
        ]
    )
    dataset = ImageFolder(data / "train", preset)
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, drop_last=True)
    network = models.get_model(NETWORK, weights=None, num_classes=len(dataset.classes))
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)
    network.train()
    sums = torch.zeros(3, dtype=torch.float64)
    began = clock()
    for step, (images, targets) in enumerate(loader):
        inputs = images.contiguous(memory_format=torch.channels_last) if channels_last else images
        output = network(inputs)
        loss = criterion(output, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sums += torch.tensor([loss.item(), *accuracies(output, targets)], dtype=torch.float64)
        if step % 10 == 0:
            print(f"  step {step}: " + " ".join(f"{value / (step + 1):.3f}" for value in sums), file=sys.stderr)
    return len(loader) * BATCH / (clock() - began)


@torch.inference_mode()
def accuracies(output: Tensor, targets: Tensor) -> tuple[float, float]:
    """Top-1 and top-5 accuracy of a batch."""
    right = output.topk(5).indices == targets[:, None]
    return right[:, 0].float().mean().item(), right.any(1).float().mean().item()


def recipe_of(size: int, **changes: object) -> Recipe:
    """What the reference does, said as a recipe."""
    recipe = Recipe(
        name="training-loop",
        title="Training loop",
        description="One epoch, to be timed.",
        data=Data(train=Source(folder="train"), validation=Source(folder="validation")),
        backbone=Backbone(name=NETWORK, weights="none"),
        preprocessing=Preprocessing(resize=size, crop=size),
        augmentation=Augmentation(size=size, scale=SCALE),
        stages=(
            Stage(
                name="all",
                epochs=1,
                rates=Rates(head=RATE),
                optimizer=Optimizer(kind="sgd", momentum=MOMENTUM, weight_decay=DECAY),
                schedule=Schedule(kind="constant"),
            ),
        ),
        batch_size=BATCH,
    )
    return recipe.model_copy(update=changes)


def ours(
    data: Path,
    recipe: Recipe,
    clock: Clock,
    workers: int | None = None,
    cache_bytes: int = CACHE_BYTES,
    kept: bool = True,
) -> float:
    """A run of the recipe; what its history says of the epoch."""
    # The epoch is timed by the training code itself.
    timer = SimpleNamespace(perf_counter=clock)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(patch("training.meter.time", timer))
        if not kept:
            stack.enter_context(patch("inference.memory.keep"))
        train(recipe, data, None, Path(folder) / "run", device="cpu", workers=workers, cache_bytes=cache_bytes)
        return read_history(Path(folder) / "run" / HISTORY)[0].images_per_second


def alone(loop: Callable[[], T]) -> T:
    """What a loop gives in a process of its own. Forked, for loader processes to start as a program's do."""
    with ProcessPoolExecutor(1, get_context("fork")) as process:
        return process.submit(loop).result()


def start_up(data: Path, recipe: Recipe, clock: Clock) -> float:
    """Seconds to read, decode and keep all photos: what a run pays once, before its first epoch."""
    with tempfile.TemporaryDirectory() as folder, PixelStore(Path(folder) / "pixels", CACHE_BYTES) as store:
        began = clock()
        open_photos(recipe, data, store)
        return clock() - began


def variants_of(data: Path, size: int, workers: int, single: bool) -> dict[str, Loop]:
    """The reference, ours as shipped, and what each step of the way is worth; `single`: one thread loads and trains."""
    clock, ours_workers = (time.process_time, 0) if single else (time.perf_counter, None)
    shipped = recipe_of(size)
    is_bf16 = alone(partial(_trains_in_bf16, shipped))
    used, other = ("bf16", "fp32") if is_bf16 else ("fp32", "bf16")
    variants: dict[str, Loop] = {
        REFERENCE: partial(reference, data, size, workers, clock),
        OURS: partial(ours, data, shipped, clock, ours_workers),
        f"ours in {other} instead of {used}": partial(
            ours, data, recipe_of(size, precision=other), clock, ours_workers
        ),
        "ours, memory given back": partial(ours, data, shipped, clock, ours_workers, kept=False),
        "ours, nothing kept decoded": partial(ours, data, shipped, clock, ours_workers, cache_bytes=0),
        "the reference with channels-last": partial(reference, data, size, workers, clock, channels_last=True),
        "the same, memory kept": partial(reference, data, size, workers, clock, channels_last=True, kept=True),
    }
    return variants if single else variants | {"ours, no loader process": partial(ours, data, shipped, clock, 0)}


def _trains_in_bf16(recipe: Recipe) -> bool:
    return Compute.plan("cpu", recipe).dtype == torch.bfloat16


def measure(data: Path, size: int, names: list[str] | None, options: argparse.Namespace) -> None:
    """Print the table of one crop size; `names` are the variants to run, None: all."""
    clock = time.process_time if options.cpu_time else time.perf_counter
    tried_workers = (0,) if options.cpu_time else (0, 1, 2)
    trials = {number: alone(partial(reference, data, size, number, clock)) for number in tried_workers}
    workers = max(trials, key=lambda number: trials[number])
    variants = variants_of(data, size, workers, options.cpu_time)
    rates: dict[str, list[float]] = {name: [] for name in names or variants}
    for _ in range(options.rounds):
        for name, found in rates.items():
            found.append(alone(variants[name]))
            print(f"crops of {size}, {name}: {found[-1]:.1f} photos/s", file=sys.stderr, flush=True)
    tried = ", ".join(f"{number}: {rate:.1f}" for number, rate in trials.items())
    print(f"\n## Crops of {size}\nThe reference has {workers} workers (photos/s in one round by workers: {tried}).\n")
    print("| loop | photos per second, median | to the reference | rounds |\n|---|---|---|---|")
    base, shipped = (statistics.median(rates[name]) for name in (REFERENCE, OURS))
    for name, found in rates.items():
        middle = statistics.median(found)
        print(f"| {name} | {middle:.1f} | {middle / base:.2f} | {', '.join(f'{rate:.1f}' for rate in found)} |")
    once = statistics.median(alone(partial(start_up, data, recipe_of(size), clock)) for _ in range(3)) / options.photos
    print(f"\nReading and decoding everything once: {once * 1000:.1f} ms a photo. Ours to the reference, that counted:")
    for epochs in (1, *EPOCHS):
        print(f"- over {epochs} epochs: {1 / (1 / shipped + once / epochs) / base:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of class folders")
    parser.add_argument("--photos", type=int, default=640, help="in an epoch, as many of each class")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 160], help="of crops; all loops run at the first")
    parser.add_argument("--loops", nargs="+", help="names as in the table, the first two among them")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds of one thread, not wall time")
    options = parser.parse_args()
    if options.cpu_time and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with photos_of(options.data, options.photos) as data:
        for index, size in enumerate(options.sizes):
            measure(data, size, [REFERENCE, OURS] if index else options.loops, options)


if __name__ == "__main__":
    main()
