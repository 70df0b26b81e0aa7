"""Which learning rate a stage bears: the range test of Smith 2015, "Cyclical Learning Rates", section 3.3.

The rate grows exponentially from step to step until the loss explodes. Weights are thrown away.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

from inference import torchrun
from inference.errors import RecipeInvalid, RunInvalid
from training.augment import seed_of
from training.backbones import Normalized, build, is_head, lay_out
from training.checkpoint import write_atomically
from training.compute import Compute, make_repeatable
from training.dataset import CACHE_BYTES, Batch, TrainingBatches, default_workers, open_photos
from training.feed import Feed, Outputs, feature_feed, frozen_features, photo_feed
from training.freezing import freeze, trained_names, training_mode
from training.lock import held
from training.loss import Loss
from training.normalization import measure
from training.optimize import make_optimizer, parameter_groups, set_rates
from training.pictures import draw_rates
from training.pixels import PixelStore
from training.progress import Progress, say
from training.recipe import Recipe
from training.run import PIXELS, RATES_CSV, RATES_PNG, check_place
from training.sections import Stage
from training.weights import fill, read_weights

LOWEST, HIGHEST, STEPS = 1e-7, 10.0, 100
EXPLODED = 4.0
"""The test ends when the smoothed loss is so many times its lowest."""
_SMOOTHING = 0.9
_WINDOW = 5  # steps to either side over which a slope is taken


@dataclass(frozen=True)
class RangeTest:
    """What each step's head rate and loss were, and two rates to try, None where the loss never fell.

    `steepest` is where the smoothed loss fell fastest over the logarithm of the rate; `tenth` is a tenth of the rate
    at its lowest, a common choice of practitioners.
    """

    stage: str
    rates: list[float]
    losses: list[float]

    @property
    def smoothed(self) -> list[float]:
        """Exponential moving average of the losses, without its bias towards 0."""
        return smooth(self.losses)

    @property
    def steepest(self) -> float | None:
        """See above. The average's first steps are noise, and single steps always are."""
        smoothed, lowest = self.smoothed, self._lowest
        places = range(2 * _WINDOW, lowest - _WINDOW + 1)
        if not places:
            return None
        return self.rates[min(places, key=lambda place: smoothed[place + _WINDOW] - smoothed[place - _WINDOW])]

    @property
    def tenth(self) -> float | None:
        """See above."""
        return self.rates[self._lowest] / 10 if self.steepest is not None else None

    @property
    def _lowest(self) -> int:
        return int(np.argmin(self.smoothed))


def find_rate(
    recipe: Recipe,
    data_root: Path,
    weights: Path | None,
    folder: Path,
    *,
    stage: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> RangeTest:
    """Sweep a stage's rates from the recipe's first weights, and write rates.csv and rates.png into `folder`.

    The stage is the named one, or the first that trains more than the head; its groups keep their ratios. Raises
    what training does, RecipeInvalid for a stage that takes no steps, RunInvalid where the loss is never a number.
    """
    if torchrun.processes() > 1:
        raise RunInvalid("the range test runs in one process; start it without torchrun")
    # Before the photos, which take minutes to decode.
    chosen = choose_stage(recipe, lay_out(recipe), stage)
    compute = Compute.plan(device, recipe)
    make_repeatable(compute)
    first = read_weights(recipe, weights)
    check_place(folder, recipe, data_root)
    _make(folder)
    with held(folder), PixelStore(folder / PIXELS, cache_bytes) as store:
        photos = open_photos(recipe, data_root, store)
        torch.manual_seed(seed_of(recipe.seed, "weights"))
        module = build(recipe, len(photos.labels)).to(compute.device)
        say(str(fill(module, first)))
        if recipe.normalization.source == "training":
            module.normalize_by(measure(photos))
        freeze(module, trained_names(module, recipe.backbone.name, chosen))
        if chosen.cached_features:
            feed = feature_feed(recipe, compute, *frozen_features(photos, module, compute))
        else:
            cuda = compute.device.type == "cuda"
            batches = TrainingBatches(photos, default_workers(cuda) if workers is None else workers)
            feed = photo_feed(photos, batches, compute)
        found = _sweep(recipe, chosen, module, feed, Loss.of(photos, compute.device), compute)
    _write(folder, found)
    return found


def choose_stage(recipe: Recipe, module: Normalized, name: str | None) -> Stage:
    """The stage of that name, or the first that trains more than the head. Raises RecipeInvalid."""
    steps = [stage for stage in recipe.stages if stage.solver.kind == "gradient"]
    if not steps:
        raise RecipeInvalid(
            f"no stage of {recipe.name} has a learning rate: its head is solved; train without --find-rate"
        )
    if name is None:
        backbone = recipe.backbone.name
        deep = (s for s in steps if not all(is_head(key, backbone) for key in trained_names(module, backbone, s)))
        return next(deep, steps[0])
    found = next((stage for stage in steps if stage.name == name), None)
    if found is None:
        known = ", ".join(stage.name for stage in steps)
        raise RecipeInvalid(f"no stage that learns by steps is called {name!r}; those of {recipe.name} are {known}")
    return found


def smooth(losses: Sequence[float]) -> list[float]:
    """Exponential moving average, each value divided by the weight that it has gathered so far."""
    mean, values = 0.0, []
    for number, loss in enumerate(losses, start=1):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        values.append(mean / (1 - _SMOOTHING**number))
    return values


def _sweep(recipe: Recipe, stage: Stage, module: Normalized, feed: Feed, loss: Loss, compute: Compute) -> RangeTest:
    assert stage.rates is not None  # so every stage with gradients
    optimizer = make_optimizer(parameter_groups(module, recipe.backbone.name, stage), stage.optimizer)
    network, wrapped = compute.setup(Outputs(feed.part(module)), optimizer)
    training_mode(module, stage.frozen_statistics)
    batches = chain.from_iterable(feed.train(epoch) for epoch in count())
    found = RangeTest(stage.name, [], [])
    with Progress("range test", STEPS, "steps") as progress:
        for rate in np.geomspace(LOWEST, HIGHEST, STEPS).tolist():
            set_rates(wrapped, rate / stage.rates.head)
            now = _step(recipe, islice(batches, recipe.accumulate), network, wrapped, loss, compute)
            progress.step(None)
            if not np.isfinite(now):
                break
            found.rates.append(rate)
            found.losses.append(now)
            smoothed = found.smoothed
            if smoothed[-1] > EXPLODED * min(smoothed):
                break
    if not found.losses:
        raise RunInvalid("the loss is no number at any rate; train in precision fp32, or begin with other weights")
    return found


def _step(
    recipe: Recipe,
    batches: Iterator[Batch],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    compute: Compute,
) -> float:
    """One step of the optimizer, and the loss before it."""
    total = 0.0
    for batch in batches:
        inputs, targets = (tensor.to(compute.device) for tensor in batch)
        part = loss.total(network(inputs), targets) / recipe.accumulate
        compute.fabric.backward(part)
        total += float(part.detach())
    if recipe.clip_norm:
        compute.fabric.clip_gradients(network, optimizer, max_norm=recipe.clip_norm, error_if_nonfinite=False)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunInvalid(f"{folder} cannot be made ({error.strerror}); choose another folder with --run") from error


def _write(folder: Path, found: RangeTest) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rate", "loss", "smoothed"])
    writer.writerows(
        [f"{value:.6g}" for value in row] for row in zip(found.rates, found.losses, found.smoothed, strict=True)
    )
    write_atomically(folder / RATES_CSV, lambda file: file.write(text.getvalue().encode()))
    marks = {"steepest descent": found.steepest, "a tenth of the lowest": found.tenth}
    draw_rates(folder / RATES_PNG, found.stage, found.rates, found.losses, found.smoothed, marks)
