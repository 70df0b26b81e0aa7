"""Fine-tuning: stage after stage, epoch after epoch, and after each epoch a checkpoint that can be gone on from."""

import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from training.assess import assess
from training.augment import seed_of
from training.board import TENSORBOARD, Board, add_pictures
from training.calibrate import fit_temperature
from training.checkpoint import BEST, LAST, Checkpoint, is_better, save
from training.compatibility import idle_keys
from training.compute import Compute, make_repeatable
from training.dataset import CACHE_BYTES, Batch, Photos, open_photos
from training.evaluate import negative_log_likelihood
from training.feed import Feed, Outputs, feature_feed, frozen_features, head_of, photo_feed
from training.freezing import freeze, trained_names, training_mode
from training.history import HISTORY, Epoch, write_history
from training.interruption import Interrupted
from training.lock import held
from training.meter import Totals, Watch, diverged
from training.optimize import make_optimizer, parameter_groups, peaks, set_rates
from training.pixels import PixelStore
from training.progress import Progress, say
from training.recipe import Recipe
from training.run import PIXELS, check_place, claim, read_record
from training.schedules import rate_factor
from training.sections import Stage
from training.session import Session, check_shares, checkpoint_bytes, open_session, restore, start
from training.solver import Points, solve
from training.steps import STEPS, append_steps, rates_of
from training.suspects import report_suspects
from training.weights import read_weights


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `best` is the epoch whose weights were kept; it is None when none was finished."""

    folder: Path
    status: Literal["finished", "interrupted"]
    epochs: int
    best: Epoch | None


def train(
    recipe: Recipe,
    data_root: Path,
    weights: Path | None,
    run_folder: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    workers: int | None = None,
    cache_bytes: int = CACHE_BYTES,
    tensorboard: bool = False,
) -> RunResult:
    """Train a recipe on the photos under `data_root` and leave a run folder with weights, figures and pictures.

    `weights` is a state dict that replaces the recipe's; `workers` the number of loader processes; `cache_bytes`
    limits the decoded pixels that are kept in a file in the run folder meanwhile, beside which checkpoints have room;
    `tensorboard` writes event files too, and a resumed run goes on with those that it has. With `resume`, a run that
    was stopped in any way after it began (its run.json is there) goes on after its last complete epoch and ends with
    the weights that it would have had; `weights` are then not looked at. One stopped before is begun anew without it.

    Raises DataInvalid, RecipeInvalid, DeviceUnavailable before work begins; RunInvalid for a folder in use or not to
    be gone on with, for weights or a checkpoint that do not fit, and when the loss is no longer a number.
    """
    compute = Compute.plan(device, recipe)
    make_repeatable(compute)
    processes = compute.processes

    def lay_down() -> Photos:
        """The photos, decoded once nothing is left to refuse; a new run begins with its checkpoint."""
        check_place(run_folder, recipe, data_root)
        claim(run_folder, recipe, resume)
        if idle := idle_keys(recipe):
            say(f"without effect, for every stage they could change trains on cached features: {', '.join(idle)}")
        # Before the photos: decoding them takes minutes, which a mistyped name shall not cost.
        first = None if resume else read_weights(recipe, weights)
        closing.enter_context(held(run_folder))
        store = PixelStore(run_folder / PIXELS, cache_bytes, spared=checkpoint_bytes(recipe))
        photos = open_photos(recipe, data_root, closing.enter_context(store))
        check_shares(photos, processes)
        if first is not None:
            start(run_folder, photos, first, compute)
        return photos

    with ExitStack() as closing:
        session = open_session(run_folder, processes.first(lay_down), compute, workers)
        restore(session)
        if resume:
            say(f"resumed after epoch {len(session.history)}")
        with session.interruption:
            if processes.rank == 0 and (tensorboard or (run_folder / TENSORBOARD).is_dir()):
                session.board = closing.enter_context(Board(run_folder, session.history))
            if not _finished(session):
                return RunResult(run_folder, "interrupted", len(session.history), session.best)
        if processes.rank == 0:
            assess(run_folder, session.photos, compute)
            if session.board:
                add_pictures(run_folder)
    return RunResult(run_folder, "finished", len(session.history), session.best)


def _finished(session: Session) -> bool:
    """Train all stages that are left; False when a signal or the death of a process ended that early, which is said."""
    reason, speaker, processes = "stopped", 0, session.compute.processes
    try:
        for index in range(session.state.stage, len(session.recipe.stages)):
            train_stage(session, index)
        return True
    except Interrupted:
        pass
    # What torch raises where a connection breaks has no class of its own.
    except RuntimeError:
        if gone := processes.gone():
            reason = f"process {', '.join(map(str, gone))} of {processes.count} died"
            speaker = min(set(range(processes.count)) - set(gone))
        # A service manager's signal goes to the loader's processes as well, whose end torch reports in any place.
        elif not session.interruption.signal:
            raise
    epochs, folder = len(session.history), session.folder
    say(f"{reason}; epoch {epochs} is saved; to go on, train with --resume {folder}", speaker)
    return False


def train_stage(session: Session, index: int) -> None:
    """Train one stage from where the checkpoint stands in it."""
    stage, state = session.recipe.stages[index], session.state
    if state.stage == index and state.stage_over:
        return
    names = trained_names(session.module, session.recipe.backbone.name, stage)
    freeze(session.module, names)
    if stage.solver.kind != "gradient":
        solve_stage(session, index, names)
        return
    groups = parameter_groups(session.module, session.recipe.backbone.name, stage)
    optimizer = make_optimizer(groups, stage.optimizer)
    if state.stage == index and state.optimizer is not None:
        optimizer.load_state_dict(state.optimizer)
    elif session.average:
        session.average.restart(session.module)
    say(f"{_announcement(session, stage, names)}; learning rates: {peaks(groups)}")
    if stage.cached_features:
        feed = feature_feed(session.recipe, session.compute, *_features(session))
    else:
        feed = photo_feed(session.photos, session.batches, session.compute)
    network, optimizer = session.compute.setup(Outputs(feed.part(session.module)), optimizer)
    first = state.stage_epoch if state.stage == index else 0
    for stage_epoch in range(first, stage.epochs):
        # Processes with equal seeds would drop out and mix alike.
        own = (rank,) if (rank := session.compute.processes.rank) else ()
        torch.manual_seed(seed_of(session.recipe.seed, "epoch", len(session.history), *own))
        trained = train_one_epoch(session, stage, stage_epoch, feed, network, optimizer)
        figures = validate(session, stage, feed)
        _record(session, index, stage_epoch, trained | figures, optimizer)
        if state.stage_over:
            break


def _features(session: Session) -> tuple[Batch, Batch]:
    """Of training and validation photos. Pretrained ones also tell, before the first epoch, what looks mislabelled."""
    known, measured = frozen_features(session.photos, session.module, session.compute)
    # Random weights know no likeness.
    if not session.history and read_record(session.folder)[0].weights["filled"]:
        session.compute.processes.first(lambda: report_suspects(session.folder, session.photos, known, measured))
    return known, measured


def solve_stage(session: Session, index: int, names: list[str]) -> None:
    """Solve a stage's head on frozen features: one row of the history. Raises Interrupted, RunInvalid."""
    recipe, stage, watch = session.recipe, session.recipe.stages[index], Watch()
    say(_announcement(session, stage, names))
    train, validation = map(Points.of, _features(session))
    solution = solve(recipe, stage.solver, train, validation, session.interruption.check)
    head = head_of(session.module, recipe)
    assert isinstance(head, nn.Linear)  # check_solver has seen to it
    solution.fold_into(head)
    if session.average:
        session.average.restart(session.module)
    figures = solution.figures(train, "train") | solution.figures(validation, "validation")
    pace = {"images_per_second": len(train.labels) / watch.seconds, "waiting": 0.0, "seconds": watch.seconds}
    _record(session, index, 0, figures | pace | {"rate": solution.strength})


def train_one_epoch(
    session: Session,
    stage: Stage,
    stage_epoch: int,
    feed: Feed,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> dict[str, float]:
    """One pass over the training photos; the figures of its row in the history. Raises Interrupted, RunInvalid."""
    epoch, together = len(session.history), session.recipe.accumulate
    moves = math.ceil(feed.steps / together)
    losses = [row.validation_loss for row in session.history if row.stage == stage.name]
    training_mode(session.module, stage.frozen_statistics)
    watch, totals = Watch(), Totals(session.where(stage), session.kept_epoch, session.compute.processes.sum)
    session.rates = []
    what = f"epoch {epoch + 1}/{sum(stage.epochs for stage in session.recipe.stages)}"
    with Progress(what, feed.photos) as progress:
        for step, batch in enumerate(watch.over(feed.train(epoch))):
            move, place = divmod(step, together)
            # The last group of an epoch may be short; its batches still make a mean.
            size = min(together, feed.steps - move * together)
            part = len(batch[1]) / feed.size
            # The gradients of the processes are averaged: those of a larger part count more.
            loss, correct = _step(session, batch, network, part * session.compute.processes.count / size)
            if place + 1 == size:
                done = stage_epoch * moves + move
                set_rates(optimizer, rate_factor(stage.schedule, done, stage.epochs * moves, moves, losses))
                session.rates += size * [rates_of(optimizer.param_groups)]
                _move(session, network, optimizer)
            totals.add(loss * part, correct, feed.size)
            progress.step(None, feed.size, note=totals.note)
            session.interruption.check()
    session.losses = totals.losses
    return {
        "train_loss": totals.loss,
        "train_accuracy": totals.accuracy,
        "rate": max(group["lr"] for group in optimizer.param_groups),
        "images_per_second": feed.photos / watch.seconds,
        "waiting": watch.waited / watch.seconds,
        "seconds": watch.seconds,
    }


@torch.inference_mode()
def validate(session: Session, stage: Stage, feed: Feed) -> dict[str, float]:
    """Losses and accuracy of the kept module on validation, in the run's precision. Raises Interrupted, RunInvalid."""
    session.compute.processes.agree(session.kept_module)
    part = feed.part(session.kept_module.eval())
    parts: list[Tensor] = []
    truths: list[Tensor] = []
    for inputs, targets in feed.validation():
        if session.interruption.signal:
            break
        with session.compute.autocast():
            parts.append(part(inputs.to(session.compute.device)).float().cpu())
        truths.append(targets.cpu())
    session.interruption.check()
    logits, truth = (
        torch.cat(found).numpy()
        for found in zip(*session.compute.processes.gather((torch.cat(parts), torch.cat(truths))), strict=True)
    )
    # The last step's loss was taken before its update: weights that it ruined show here first.
    if not np.isfinite(logits).all():
        raise diverged(f"the validation loss is no number in {session.where(stage)}", session.kept_epoch)
    return {
        "validation_loss": negative_log_likelihood(logits, truth),
        "validation_accuracy": float((logits.argmax(axis=1) == truth).mean()),
        "calibrated_loss": negative_log_likelihood(logits, truth, fit_temperature(logits, truth)),
    }


def _step(session: Session, batch: Batch, network: nn.Module, share: float) -> tuple[Tensor, Tensor]:
    """Add a batch's share to the gradients; its loss and the number of right answers, still on the device."""
    inputs, targets = (tensor.to(session.compute.device, non_blocking=True) for tensor in batch)
    outputs = network(inputs)
    loss = session.loss.total(outputs, targets)
    session.compute.fabric.backward(loss * share)
    truth = targets if targets.ndim == 1 else targets.argmax(1)
    return loss.detach(), (outputs[0].argmax(1) == truth).sum()


def _move(session: Session, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Let the gradients move the weights, and the weights the average."""
    if session.recipe.clip_norm:
        # Gradients that are no numbers do not end the run here: the losses say where, in words.
        session.compute.fabric.clip_gradients(
            network, optimizer, max_norm=session.recipe.clip_norm, error_if_nonfinite=False
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if session.average:
        session.average.update(session.module)


def _record(
    session: Session,
    index: int,
    stage_epoch: int,
    figures: dict[str, float],
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Save what an epoch did: best weights first, then the checkpoint that makes the epoch count."""
    state, selection = session.state, session.recipe.selection
    better = is_better(selection.metric, figures, state.best)
    kept = better or selection.keep == "last"
    stage = session.recipe.stages[index]
    row = Epoch(epoch=len(session.history) + 1, stage=stage.name, kept=kept, **figures)
    session.history.append(row)
    if better:
        state.best = asdict(row)
    state.stage, state.stage_epoch = index, stage_epoch + 1
    state.stage_over = state.stage_epoch == stage.epochs or _out_of_patience(session, stage)
    state.module = session.module.state_dict()
    if session.average:
        state.average, state.average_updates = session.average.module.state_dict(), session.average.updates
    state.optimizer = optimizer.state_dict() if optimizer else None
    state.scaler = session.compute.precision.state_dict()
    state.history = [asdict(epoch) for epoch in session.history]
    session.compute.processes.first(lambda: _write(session, row))


def _write(session: Session, row: Epoch) -> None:
    state = session.state
    if row.kept:
        save(
            session.folder / BEST, Checkpoint(state.identity, module=session.kept_module.state_dict(), best=asdict(row))
        )
    steps = append_steps(session.folder / STEPS, row.epoch, row.stage, session.losses, session.rates)
    session.losses, session.rates = [], []  # a stage that a solver trains takes no steps
    if session.board:
        session.board.epoch(steps, row)
    save(session.folder / LAST, state)
    write_history(session.folder / HISTORY, session.history)
    say(str(row))


def _out_of_patience(session: Session, stage: Stage) -> bool:
    patience, best = session.recipe.selection.patience, session.state.best
    if patience is None or best is None:
        return False
    done = [epoch.epoch for epoch in session.history if epoch.stage == stage.name]
    return done[-1] - max(int(best["epoch"]), done[0] - 1) >= patience


def _announcement(session: Session, stage: Stage, names: list[str]) -> str:
    parameters = dict(session.module.network.named_parameters())
    trained, total = (sum(parameters[name].numel() for name in part) for part in (names, parameters))
    return (
        f"stage {stage.name}: {stage.epochs} epochs, {trained:,} of {total:,} parameters train "
        f"({trained / total:.2%}), on {session.compute}"
    )
