"""What `petalpaw train --dry-run` prints."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

from inference import torchrun
from inference.errors import RunInvalid

if TYPE_CHECKING:
    from training.outline import Outline
    from training.recipe import Recipe


def show_outline(recipe: "Recipe", data_root: Path, weights: Path | None, device: str) -> None:
    """Measure what a recipe would do and print it; nothing is written. Raises what training would, before it begins."""
    from training.compute import Compute
    from training.outline import outline
    from training.splits import count_photos
    from training.weights import read_weights

    if torchrun.processes() > 1:
        raise RunInvalid("--dry-run measures one process; start it without torchrun")
    if weights is not None:
        read_weights(recipe, weights)
    photos, classes = count_photos(recipe.data, data_root)
    plan = outline(recipe, photos, classes, Compute.plan(device, recipe))
    console = Console()
    console.print(_layers(recipe, plan))
    console.print(_stages(plan))
    counts = ", ".join(f"{count:,} {split}" for split, count in plan.photos.items())
    console.print(f"{plan.parameters:,} parameters; photos: {counts}; {len(plan.classes)} classes; on {plan.compute}")
    whole = timedelta(seconds=round(sum(stage.seconds for stage in plan.stages)))
    console.print(f"about {whole} in all, from a few steps on noise just now; decoding the photos comes on top")


def _layers(recipe: "Recipe", plan: "Outline") -> Table:
    title = f"{recipe.name}: {recipe.backbone.name}"
    table = Table(Column("layer", no_wrap=True), "kind", "parameters", "trains in", title=title)
    for layer in plan.layers:
        table.add_row(layer.name, layer.kind, f"{layer.parameters:,}", ", ".join(layer.trained_in) or "frozen")
    rest = plan.parameters - sum(layer.parameters for layer in plan.layers)
    if rest:
        table.add_row("(elsewhere)", "", f"{rest:,}", "")
    return table


def _stages(plan: "Outline") -> Table:
    whole = [Column(name, no_wrap=True) for name in ("stage", "trained", "share")]
    table = Table(whole[0], "epochs", *whole[1:], "learning rates", "memory", "time")
    for stage in plan.stages:
        table.add_row(
            stage.name,
            str(stage.epochs),
            f"{stage.parameters:,}",
            f"{stage.parameters / plan.parameters:.2%}",
            stage.rates,
            f"{stage.memory / 2**20:,.0f} MiB",
            str(timedelta(seconds=round(stage.seconds))),
        )
    return table
