"""The front door: one command line from labelled photos to predictions.

stdout carries data, stderr carries progress and messages. Exit status: 0 done, 1 some inputs failed, 2 wrong usage,
3 nothing could be done. A command's package is imported when the command is chosen.
"""

import json
import os
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from inference.errors import ParameterInvalid, PetalpawError

if TYPE_CHECKING:
    from inference.classifier import Classifier
SOME_FAILED, WRONG_USAGE, NOTHING_DONE, INTERRUPTED = 1, 2, 3, 130
LOOPBACK = "127.0.0.1"

app = typer.Typer(
    help="From a folder of labelled photos to a served image classifier that gives PyTorch's answers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models_app = typer.Typer(help="Look into a model repository.", no_args_is_help=True)
recipes_app = typer.Typer(help="Look at the shipped recipes.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(recipes_app, name="recipes")
messages = Console(stderr=True, highlight=False, soft_wrap=True)


class DeviceOption(StrEnum):
    """What `--device` takes; `auto` is CUDA where it works, else the CPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class FormatOption(StrEnum):
    """What `--format` takes."""

    csv = "csv"
    jsonl = "jsonl"


class RuntimeOption(StrEnum):
    """What `--runtime` takes."""

    onnx = "onnx"
    torchscript = "torchscript"


Models = Annotated[
    Path, typer.Option("--models", envvar="PETALPAW_MODELS", help="The model repository.", show_default="./models")
]
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="NAME or NAME/VERSION; needed when there are several.")
]
Runtime = Annotated[RuntimeOption, typer.Option("--runtime", envvar="PETALPAW_RUNTIME", help="What runs the model.")]
Device = Annotated[DeviceOption, typer.Option("--device", envvar="PETALPAW_DEVICE", help="auto: CUDA where it works.")]
TopK = Annotated[int, typer.Option("--top-k", "-k", min=1, help="How many classes per picture, most probable first.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as `petalpaw train` made it.")]


def main() -> None:
    """Run the command line; Petalpaw's own errors become one line and exit status 3, or 2 for a wrong value."""
    try:
        app()
    except PetalpawError as error:
        messages.print(f"petalpaw: {error.detail} [{error.code}]", style="red", markup=False)
        sys.exit(WRONG_USAGE if isinstance(error, ParameterInvalid) else NOTHING_DONE)
    except OSError as error:  # a full disk, a folder that may not be written: the system's own words say which
        messages.print(f"petalpaw: {error}; make room or check the path, its owner and mode", style="red", markup=False)
        sys.exit(NOTHING_DONE)


@app.command(epilog="Example: petalpaw serve --port 8080")
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is every one.")] = LOOPBACK,
    port: Annotated[int, typer.Option(envvar="PORT", min=1, max=65535, help="The port to listen on.")] = 3000,
    models: Models = Path("models"),
    runtime: Runtime = RuntimeOption.onnx,
    device: Device = DeviceOption.auto,
) -> None:
    """Serve every model of the repository over HTTP. docs/settings.md lists the further settings."""
    import service
    from service.launch import check_address, serve_command

    check_address(host, port)
    os.environ.update(
        PETALPAW_MODELS=str(models.resolve()), PETALPAW_RUNTIME=runtime.value, PETALPAW_DEVICE=device.value
    )
    # BentoML would report each start to its makers.
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    # BentoML looks for the service in the working folder first, where a user may have a `service` of his own.
    os.chdir(Path(next(iter(service.__path__))).parent)
    command = serve_command(host, port)
    os.execv(command[0], command)  # noqa: S606 – the server takes this process's place, its signals included


@app.command(epilog="Example: petalpaw classify cat.jpg dog.jpg --model catdog")
def classify(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Pictures to classify.")],
    model: Model = None,
    top_k: TopK = 3,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per picture.")] = False,
    models: Models = Path("models"),
    runtime: Runtime = RuntimeOption.onnx,
    device: Device = DeviceOption.auto,
) -> None:
    """Classify a few pictures and print the answers."""
    from inference.errors import ImageError
    from inference.prediction import Prediction
    from scoring.sources import FileItem

    classifier = _classifier(models, model, runtime, device)
    failed = 0
    for index, path in enumerate(images):
        item = FileItem(index, os.fspath(path), named=True)
        outcome: Prediction | ImageError
        try:
            (outcome,) = classifier.classify([item.read()], top_k)
        except ImageError as error:
            outcome = error
        failed += isinstance(outcome, ImageError)
        typer.echo(_outcome_json(item.path, outcome) if as_json else _outcome_text(item.path, outcome))
    raise typer.Exit(SOME_FAILED if failed else 0)


@app.command(epilog="Example: petalpaw score photos/ --model flowers --output flowers.csv")
def score(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE…", help="Files and folders of pictures.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .csv or .jsonl file; default: stdout.")
    ] = None,
    format: Annotated[FormatOption | None, typer.Option(help="Where the output's ending does not say.")] = None,  # noqa: A002
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    model: Model = None,
    top_k: TopK = 5,
    streams: Annotated[int | None, typer.Option(min=1, help="Pictures at once; default: as many as cores.")] = None,
    models: Models = Path("models"),
    runtime: Runtime = RuntimeOption.onnx,
    device: Device = DeviceOption.auto,
) -> None:
    """Score files and folders, a row per picture, errors included."""
    from scoring.local import CUDA_BATCH, LocalEngine
    from scoring.progress import progress_on
    from scoring.run import score as run
    from scoring.sinks import FileSink, StreamSink
    from scoring.sources import Files

    source = Files(sources)
    # An output that cannot be is refused before a model is loaded.
    sink = FileSink(output, format, overwrite=overwrite) if output else StreamSink(format or "jsonl")
    classifier = _classifier(models, model, runtime, device, batch_sizes=(CUDA_BATCH,))
    engine = LocalEngine(classifier, streams=streams, top_k=top_k)
    summary = run(source, engine, sink, progress_on(messages))
    messages.print(str(summary), markup=False)
    raise typer.Exit(summary.exit_status)


@app.command(epilog="Example: petalpaw train flowers --data photos/ --weights mobilenet_v2.pth")
def train(
    recipe: Annotated[str | None, typer.Argument(help="A recipe file, or the name of a shipped recipe.")] = None,
    data: Annotated[Path | None, typer.Option(help="The folder that the recipe's data folders lie in.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A state dict to start from, instead of the recipe's.")] = None,
    run: Annotated[Path | None, typer.Option(help="The run folder to make.", show_default="runs/NAME")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with a run that was stopped.")] = None,
    device: Device = DeviceOption.auto,
    workers: Annotated[int | None, typer.Option(min=0, help="Loader processes; default: by the CPU budget.")] = None,
) -> None:
    """Fine-tune a recipe's network on labelled photos and leave a run folder with weights, figures and pictures."""
    from training.finetune import train as finetune
    from training.recipe import load_recipe
    from training.run import read_record

    if resume is not None:
        if recipe or run or weights:
            raise typer.BadParameter("a run that is resumed has its recipe, folder and weights; name none of them")
        record, chosen = read_record(resume)
        data, run = data or Path(record.data_root), resume
    elif recipe is None or data is None:
        raise typer.BadParameter("name a recipe and its photos with --data, or a run with --resume")
    else:
        chosen = load_recipe(recipe, data)
        run = run or Path("runs") / chosen.name
    result = finetune(chosen, data, weights, run, resume=resume is not None, device=device.value, workers=workers)
    if result.status == "interrupted":
        raise typer.Exit(INTERRUPTED)
    typer.echo(result.folder)


@app.command(epilog="Example: petalpaw evaluate runs/flowers")
def evaluate(
    run: RunFolder,
    data: Annotated[
        Path | None, typer.Option(help="Where the photos are now; default: where training had them.")
    ] = None,
    device: Device = DeviceOption.auto,
) -> None:
    """Measure a run's kept weights anew on its validation and test photos, and calibrate and draw again."""
    from training.assess import assess_again

    evaluated = assess_again(run, data, device.value)
    typer.echo((evaluated.folder / "metrics.json").read_text("utf-8"), nl=False)


@app.command(epilog="Example: petalpaw export runs/flowers")
def export(run: RunFolder) -> None:
    """Write a finished run's ONNX and TorchScript files and its manifest to RUN/artifact."""
    from training.export import export as export_run
    from training.run import Run

    artifact = export_run(Run.open(run))
    for name, entry in artifact.manifest.files.items():
        messages.print(f"{artifact.folder / name}  {entry.size / 1e6:.1f} MB  {entry.sha256[:19]}…")
    typer.echo(artifact.folder)


@app.command(epilog="Example: petalpaw parity runs/flowers --data photos/")
def parity(
    run: RunFolder,
    data: Annotated[
        Path | None, typer.Option(help="Where the photos are now; default: where training had them.")
    ] = None,
    photos: Annotated[int, typer.Option(min=1, help="How many validation photos to compare.")] = 128,
) -> None:
    """Compare the exported files with PyTorch eager on validation photos and golden inputs; exit 1 when they differ."""
    from inference.repository import EXPORTED, Artifact
    from training.parity import check, report
    from training.run import Run

    opened = Run.open(run)
    artifact = Artifact.open(run / EXPORTED)
    table = Table("runtime", "device", "batch", "max |Δlogit|", "mean |Δlogit|", "top-1 agreement", "pictures")
    comparisons = []
    for item in check(artifact, opened.module(), opened.photos("validation", photos, data)):
        comparisons.append(item)
        table.add_row(
            item.runtime,
            item.device,
            str(item.batch),
            f"{item.max_difference:.2g}",
            f"{item.mean_difference:.2g}",
            f"{item.top1_agreement:.4f}",
            str(item.images),
        )
        messages.print(f"{item.runtime} on {item.device}, batch {item.batch}: {item.max_difference:.2g}")
    result = report(artifact, comparisons)
    Console().print(table)
    typer.echo(f"{'passed' if result.passed else 'FAILED'}: tolerance {artifact.manifest.golden.tolerance:g}")
    for problem in result.problems:
        messages.print(problem, style="red", markup=False)
    raise typer.Exit(0 if result.passed else SOME_FAILED)


@app.command(epilog="Example: petalpaw publish runs/flowers")
def publish(run: RunFolder, models: Models = Path("models")) -> None:
    """Copy a run's artifact into the model repository as the next version; refused unless parity passed."""
    from inference.repository import EXPORTED, Repository

    artifact = Repository(models).publish(run / EXPORTED)
    messages.print(f"published {artifact.name}/{artifact.version} {artifact.digest}")
    typer.echo(artifact.folder)


@models_app.command("list", epilog="Example: petalpaw models list")
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


@models_app.command("show", epilog="Example: petalpaw models show catdog")
def models_show(
    name: Annotated[str, typer.Argument(help="NAME or NAME/VERSION.")], models: Models = Path("models")
) -> None:
    """The manifest of a model, as JSON."""
    from inference.repository import Repository

    artifact = Repository(models).open(*_name_and_version(name))
    typer.echo(artifact.manifest.to_json(), nl=False)


@models_app.command("verify", epilog="Example: petalpaw models verify")
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


@recipes_app.command("list", epilog="Example: petalpaw recipes list")
def recipes_list() -> None:
    """The shipped recipes."""
    from training.recipe import load_recipe, recipe_names

    table = Table("recipe", "backbone", "epochs", "title")
    for name in recipe_names():
        recipe = load_recipe(name)
        table.add_row(name, recipe.backbone.name, str(sum(stage.epochs for stage in recipe.stages)), recipe.title)
    Console().print(table)


@recipes_app.command("show", epilog="Example: petalpaw recipes show flowers")
def recipes_show(name: Annotated[str, typer.Argument(help="A shipped recipe's name, or a file.")]) -> None:
    """A recipe with every default written out."""
    from training.recipe import load_recipe

    typer.echo(load_recipe(name).to_yaml(), nl=False)


def _classifier(
    models: Path,
    model: str | None,
    runtime: RuntimeOption,
    device: DeviceOption,
    batch_sizes: tuple[int, ...] = (),
) -> "Classifier":
    """Load the named model, or the only one. Raises ParameterInvalid when there are several and none is named."""
    from inference.classifier import Classifier
    from inference.repository import Repository

    repository = Repository(models)
    if model is None:
        artifacts = repository.latest()
        if len(artifacts) > 1:
            raise ParameterInvalid(f"name a model with --model: {', '.join(each.name for each in artifacts)}")
        artifact = artifacts[0]
    else:
        artifact = repository.open(*_name_and_version(model))
    return Classifier.load(artifact, runtime=runtime.value, device=device.value, batch_sizes=batch_sizes)


def _name_and_version(model: str) -> tuple[str, str | None]:
    name, _, version = model.partition("/")
    return name, version or None


def _outcome_text(path: str, outcome: Any) -> str:
    # One line per picture, whatever its name holds.
    path = "".join(each if each.isprintable() else repr(each)[1:-1] for each in path)
    if isinstance(outcome, PetalpawError):
        return f"{path}\t{outcome.code}\t{outcome.detail}"
    ranked = ", ".join(f"{each.label} {each.probability:.1%}" for each in outcome.top_k)
    return f"{path}\t{'not sure: ' if outcome.abstained else ''}{ranked}"


def _outcome_json(path: str, outcome: Any) -> str:
    if isinstance(outcome, PetalpawError):
        answer = {"error": {"code": outcome.code, "status": outcome.status, "detail": outcome.detail}}
    else:
        answer = asdict(outcome)
    return json.dumps({"path": path, **answer}, ensure_ascii=False)


if __name__ == "__main__":
    main()
