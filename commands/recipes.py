"""`petalpaw recipes`: what can be trained."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from commands.options import Backbone, ModelName, Strategy
from commands.own import Own, recipe_for

app = typer.Typer(help="Look at the shipped recipes.", no_args_is_help=True)


@app.command("list", epilog="Example: petalpaw recipes list")
def recipes_list() -> None:
    """The shipped recipes."""
    from training.recipe import load_recipe, recipe_names

    # A name is for copying: on a narrow terminal the other columns give way.
    table = Table(Column("recipe", no_wrap=True), "backbone", "epochs", "title")
    for name in recipe_names():
        recipe = load_recipe(name)
        table.add_row(name, recipe.backbone.name, str(sum(stage.epochs for stage in recipe.stages)), recipe.title)
    Console().print(table)


@app.command("show", epilog="Example: petalpaw recipes show flowers")
def recipes_show(
    recipe: Annotated[str | None, typer.Argument(help="A shipped recipe's name, or a file.")] = None,
    data: Annotated[Path | None, typer.Option(help="Without a recipe: show the one chosen for these photos.")] = None,
    strategy: Strategy = None,
    backbone: Backbone = None,
    name: ModelName = None,
) -> None:
    """A recipe with every default written out."""
    if recipe is None and data is None:
        raise typer.BadParameter("name a recipe, or photos with --data")
    typer.echo(recipe_for(recipe, data, Own(strategy, backbone, name)).to_yaml(), nl=False)


@app.command("backbones", epilog="Example: petalpaw recipes backbones --json")
def recipes_backbones(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list instead of a table.")] = False,
) -> None:
    """The networks that a recipe can name: parameters for 1,000 classes, input side in pixels, layers of the head."""
    from training.backbones import backbone_facts, backbone_names
    from training.progress import Progress

    names = backbone_names()
    with Progress("laying out", len(names), "backbones") as progress:
        facts = [progress.step(backbone_facts(name)) for name in names]
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in facts], indent=2))
        return
    parameters, side = (Column(name, justify="right") for name in ("parameters", "native px"))
    table = Table(Column("backbone", no_wrap=True), parameters, side, "head")
    for each in facts:
        table.add_row(each.name, f"{each.parameters:,}", str(each.native_size), ", ".join(each.head))
    Console().print(table)
