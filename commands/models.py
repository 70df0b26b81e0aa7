"""`petalpaw models`: what a repository holds."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from commands.options import SOME_FAILED, Device, DeviceOption, Models, Runtime, RuntimeOption, name_and_version
from inference.errors import PetalpawError

app = typer.Typer(help="Look into a model repository.", no_args_is_help=True)


@app.command("list", epilog="Example: petalpaw models list")
def models_list(models: Models = Path("models")) -> None:
    """Every model and version, with its measured accuracy."""
    from inference.repository import Repository

    repository = Repository(models)
    table = Table("model", "version", "classes", "accuracy (95 % interval)", "measured on", "title")
    for artifact in (repository.open(*each) for each in repository.contents()):
        metrics = artifact.manifest.metrics
        table.add_row(
            artifact.name,
            artifact.version,
            str(len(artifact.manifest.labels)),
            f"{metrics.accuracy:.1%} ({metrics.accuracy_low:.1%}–{metrics.accuracy_high:.1%})" if metrics else "–",
            f"{metrics.split}, {metrics.images} pictures" if metrics else "–",
            artifact.manifest.title,
        )
    Console().print(table)


@app.command("show", epilog="Example: petalpaw models show catdog")
def models_show(
    name: Annotated[str, typer.Argument(help="NAME or NAME/VERSION.")], models: Models = Path("models")
) -> None:
    """The manifest of a model, as JSON."""
    from inference.repository import Repository

    artifact = Repository(models).open(*name_and_version(name))
    typer.echo(artifact.manifest.to_json(), nl=False)


@app.command("verify", epilog="Example: petalpaw models verify")
def models_verify(
    models: Models = Path("models"),
    runtime: Runtime = RuntimeOption.onnx,
    device: Device = DeviceOption.auto,
) -> None:
    """Check every digest and replay the golden inputs of every model; exit 1 when one fails."""
    from inference.classifier import Classifier
    from inference.repository import Repository

    repository = Repository(models)
    failed = False
    for name, version in repository.contents():
        try:
            loaded = Classifier.load(repository.open(name, version), runtime=runtime.value, device=device.value)
        except PetalpawError as error:
            failed = True
            typer.echo(f"{name}/{version}: FAILED [{error.code}] {error.detail}")
        else:
            typer.echo(f"{name}/{version}: ok on {loaded.runtime.execution_provider}, {loaded.artifact.digest}")
    raise typer.Exit(SOME_FAILED if failed else 0)
