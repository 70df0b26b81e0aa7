"""A run in progress: begun once by the first process, then opened by every one from the checkpoint that it saved."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from inference.errors import DataInvalid
from inference.manifest import Digest
from training.assess import begin
from training.augment import seed_of
from training.backbones import Normalized, build, lay_out
from training.board import Board
from training.checkpoint import LAST, Checkpoint, Identity, load, save
from training.compute import Compute
from training.dataset import Photos, TrainingBatches, default_workers
from training.freezing import freeze, never_trained, trained_names, training_mode
from training.history import Epoch
from training.interruption import Interruption
from training.loss import Loss
from training.normalization import measure
from training.optimize import Average
from training.processes import Processes
from training.progress import say
from training.recipe import Recipe
from training.run import read_record
from training.sections import Stage
from training.steps import STEPS, Rates, cut_steps
from training.weights import Weights, fill


@dataclass
class Session:
    """A run in progress: what the stages share and what a checkpoint saves."""

    recipe: Recipe
    folder: Path
    photos: Photos
    batches: TrainingBatches
    compute: Compute
    module: Normalized
    loss: Loss
    average: Average | None
    state: Checkpoint
    history: list[Epoch] = field(default_factory=list)
    interruption: Interruption = field(default_factory=Interruption)
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last epoch was recorded, as are `rates`."""
    rates: list[Rates] = field(default_factory=list)
    board: Board | None = None

    @property
    def kept_module(self) -> Normalized:
        """What is validated and kept: the average where the recipe has one."""
        return self.average.module if self.average else self.module

    @property
    def best(self) -> Epoch | None:
        """The epoch whose weights are kept."""
        return next((epoch for epoch in reversed(self.history) if epoch.kept), None)

    @property
    def kept_epoch(self) -> int | None:
        """Its number."""
        return self.best.epoch if self.best else None

    def where(self, stage: Stage) -> str:
        """The epoch in progress, for messages."""
        return f"stage {stage.name}, epoch {len(self.history) + 1}"


def start(folder: Path, photos: Photos, weights: Weights, compute: Compute) -> None:
    """Fill the pretrained weights into the recipe's network and save it as the checkpoint before the first epoch.

    Raises RunInvalid, and DataInvalid for photos that cannot be measured.
    """
    recipe, module = photos.recipe, _network(photos)
    filled = fill(module, weights)
    say(str(filled))
    if not filled.filled and (fixed := never_trained(module, recipe)):
        say(
            f"warning: all weights are random and no stage trains {len(fixed)} tensors of them, {fixed[0]} first; "
            "start from pretrained weights, or train every layer (--strategy scratch)"
        )
    normalization = recipe.normalization
    if normalization.source == "training":
        normalization = measure(photos)
        module.normalize_by(normalization)
    save(folder / LAST, Checkpoint(_identity(photos, recipe.digest), module=module.state_dict()))
    # Only now is there a run: whoever finds its record finds the weights that it began with, too.
    begin(folder, recipe, photos, filled, normalization, compute)


def open_session(folder: Path, photos: Photos, compute: Compute, workers: int | None) -> Session:
    """A session whose network has random weights, drawn from the recipe's seed."""
    cuda = compute.device.type == "cuda"
    loaders = default_workers(cuda) if workers is None else workers
    return Session(
        recipe=photos.recipe,
        folder=folder,
        photos=photos,
        batches=TrainingBatches(photos, loaders, cuda, compute.processes.share),
        compute=compute,
        module=_network(photos).to(compute.device),
        loss=Loss.of(photos, compute.device),
        average=None,
        # The digest that the run began with: this version may write the recipe out with more keys.
        state=Checkpoint(_identity(photos, read_record(folder)[0].provenance.recipe_sha256)),
        interruption=Interruption(compute.processes),
    )


def restore(session: Session) -> None:
    """Bring a session to where its last checkpoint left it. Raises RunInvalid for a checkpoint of another run."""
    session.state = load(session.folder / LAST, session.state.identity)
    session.module.load_state_dict(session.state.module)
    if session.state.scaler:
        session.compute.precision.load_state_dict(session.state.scaler)
    if session.recipe.average:
        session.average = Average(session.module, session.recipe.average)
        if session.state.average is not None:
            session.average.module.load_state_dict(session.state.average)
            session.average.updates = session.state.average_updates
    session.history = [Epoch(**row) for row in session.state.history]
    session.compute.processes.first(lambda: cut_steps(session.folder / STEPS, len(session.history)))


def checkpoint_bytes(recipe: Recipe) -> int:
    """What a run's checkpoints need of the disk, at most.

    Nine times the network: its weights, their average and an optimizer's two moments in last.pt and in the next one
    that is written beside it, and the kept weights.
    """
    network: int = sum(tensor.nbytes for tensor in lay_out(recipe).state_dict().values())
    return 9 * network


def check_shares(photos: Photos, processes: Processes) -> None:
    """Raises DataInvalid when a batch or a split cannot be shared out."""
    if processes.count == 1:
        return
    each = 2 if _moves_statistics(photos.recipe) else 1  # batch norm cannot normalise by a single photo
    batch = min(photos.recipe.batch_size, len(photos.splits["train"]))
    most = min(batch // each, *(len(items) for items in photos.splits.values()))
    if most < processes.count:
        raise DataInvalid(
            f"{processes.count} processes cannot share batches of {batch} photos, {each} for each, and splits of "
            f"{min(map(len, photos.splits.values()))}; start {most} at most"
        )


def _moves_statistics(recipe: Recipe) -> bool:
    """Whether some stage normalises by the batches that it trains on."""
    module = lay_out(recipe)
    for stage in recipe.stages:
        freeze(module, trained_names(module, recipe.backbone.name, stage))
        training_mode(module, stage.frozen_statistics)
        layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        if not stage.cached_features and any(layer.training for layer in layers):
            return True
    return False


def _network(photos: Photos) -> Normalized:
    torch.manual_seed(seed_of(photos.recipe.seed, "weights"))
    return build(photos.recipe, len(photos.labels))


def _identity(photos: Photos, recipe: Digest) -> Identity:
    return Identity(recipe, photos.recipe.backbone.name, list(photos.labels), photos.fingerprint)
