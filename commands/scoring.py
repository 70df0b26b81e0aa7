"""`petalpaw classify` for a few pictures, `petalpaw score` for many."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from commands.options import (
    SOME_FAILED,
    Device,
    DeviceOption,
    FormatOption,
    Model,
    Models,
    Runtime,
    RuntimeOption,
    TopK,
    classifier_of,
    messages,
)
from inference.errors import PetalpawError

app = typer.Typer()


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

    classifier = classifier_of(models, model, runtime, device)
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
    classifier = classifier_of(models, model, runtime, device, batch_sizes=(CUDA_BATCH,))
    engine = LocalEngine(classifier, streams=streams, top_k=top_k)
    summary = run(source, engine, sink, progress_on(messages))
    messages.print(str(summary), markup=False)
    raise typer.Exit(summary.exit_status)


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
    # Bytes of a name that are no text become escapes, as JSON has them.
    return json.dumps({"path": path, **answer}, ensure_ascii=False).encode(errors="backslashreplace").decode()
