"""What `petalpaw train --find-rate` prints."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from training.recipe import Recipe


def suggest_rates(
    recipe: "Recipe",
    data_root: Path,
    weights: Path | None,
    folder: Path,
    stage: str | None,
    device: str,
    workers: int | None,
) -> None:
    """Run the range test and print its suggestions as one JSON object. Raises what training would."""
    from training.rates import find_rate

    found = find_rate(recipe, data_root, weights, folder, stage=stage, device=device, workers=workers)
    answer = {
        "stage": found.stage,
        "steepest": found.steepest,
        "tenth_of_lowest": found.tenth,
        "steps": len(found.losses),
        "folder": str(folder),
    }
    typer.echo(json.dumps(answer))
