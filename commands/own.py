"""The recipe of a command: the one that is named, or one for one's own photos."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from commands.options import StrategyOption, messages

if TYPE_CHECKING:
    from training.recipe import Recipe


@dataclass(frozen=True)
class Own:
    """What a recipe for one's own photos is chosen by, where the command line says it."""

    strategy: StrategyOption | None
    backbone: str | None
    name: str | None

    @property
    def asked(self) -> bool:
        """Whether it says anything."""
        return any((self.strategy, self.backbone, self.name))


def recipe_for(
    recipe: str | None, data: Path | None, own: Own, changes: Sequence[str] = (), weights: Path | None = None
) -> "Recipe":
    """The recipe that is named, or else one chosen for the photos, with its reasons on stderr."""
    from training.recipe import load_recipe
    from training.strategies import propose

    if recipe is not None or data is None:
        if own.asked:
            raise typer.BadParameter("--strategy, --backbone and --name go with --data alone; use --set on a recipe")
        return load_recipe(recipe or "", data, changes)
    if own.strategy == "scratch" and weights:
        raise typer.BadParameter("from scratch means from random weights; leave --weights or --strategy out")
    proposal = propose(data, own.strategy.value if own.strategy else None, own.backbone, own.name, changes)
    for line in proposal.reasons:
        messages.print(line, markup=False)
    return proposal.recipe
