"""`petalpaw data`: public data sets by name."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from commands.options import INTERRUPTED, messages

app = typer.Typer(help="Fetch public data sets by name.", no_args_is_help=True)

Root = Annotated[Path, typer.Option("--to", help="The data folder; each set gets a folder of its name in it.")]


@app.command("list", epilog="Example: petalpaw data list")
def data_list(to: Root = Path("data")) -> None:
    """The sets that are known by name, who may use them, and whether they are there."""
    from training.datasets.catalog import CATALOG
    from training.datasets.store import lacking, pictures_in

    table = Table("name", "pictures", "download", f"in {to}", "what, from whom, who may use it", show_lines=True)
    for each in CATALOG.values():
        there = f"{pictures_in(each, to):,}" if not lacking(each, to) else "–"
        about = f"{each.title}\n{each.origin}\n{each.licence}"
        table.add_row(each.name, f"{each.count:,}", f"{each.size / 1e6:,.0f} MB", there, about)
    Console().print(table)


@app.command("fetch", epilog="Example: petalpaw data fetch mnist cifar10 --to data")
def data_fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Sets, as `petalpaw data list` names them.")],
    to: Root = Path("data"),
    source: Annotated[
        Path | None, typer.Option("--from", help="A folder with the downloaded files, instead of the network.")
    ] = None,
) -> None:
    """Fetch sets, verify them and lay them out as class folders. Stopped or cut off, the same command goes on."""
    from training.datasets.catalog import named
    from training.datasets.store import fetch

    try:
        for each in [named(name) for name in names]:
            if not fetch(each, to, source):
                messages.print(f"{each.name} is in {to / each.name} already", markup=False)
            typer.echo(to / each.name)
    except KeyboardInterrupt:
        messages.print("stopped; what has come stays, and the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
