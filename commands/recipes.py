"""`petalpaw recipes`: what can be trained."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(help="Look at the shipped recipes.", no_args_is_help=True)


@app.command("list", epilog="Example: petalpaw recipes list")
def recipes_list() -> None:
    """The shipped recipes."""
    from training.recipe import load_recipe, recipe_names

    table = Table("recipe", "backbone", "epochs", "title")
    for name in recipe_names():
        recipe = load_recipe(name)
        table.add_row(name, recipe.backbone.name, str(sum(stage.epochs for stage in recipe.stages)), recipe.title)
    Console().print(table)


@app.command("show", epilog="Example: petalpaw recipes show flowers")
def recipes_show(name: Annotated[str, typer.Argument(help="A shipped recipe's name, or a file.")]) -> None:
    """A recipe with every default written out."""
    from training.recipe import load_recipe

    typer.echo(load_recipe(name).to_yaml(), nl=False)
