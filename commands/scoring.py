"""`petalpaw classify` for a few pictures, `petalpaw score` for many."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from commands.engines import EngineChoice, EngineOption, RayAddress, Streams, engine_of
from commands.options import (
    SOME_FAILED,
    Base,
    Column,
    Device,
    DeviceOption,
    FormatOption,
    Model,
    Models,
    Runtime,
    RuntimeOption,
    Sources,
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
    from scoring.files import FileItem

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
    sources: Sources,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .csv, .jsonl or .parquet file; default: stdout.")
    ] = None,
    format: Annotated[FormatOption | None, typer.Option(help="Where the output's ending does not say.")] = None,  # noqa: A002
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Drop what an unfinished run left, and begin anew.")
    ] = False,
    column: Column = None,
    base: Base = None,
    null: Annotated[bool, typer.Option("--null", "-0", help="Paths on stdin end with zero bytes.")] = False,
    model: Model = None,
    top_k: TopK = 5,
    content_hash: Annotated[bool, typer.Option("--hash", help="Add each file's sha256.")] = False,
    with_logits: Annotated[bool, typer.Option("--with-logits", help="Add the model's logits.")] = False,
    with_features: Annotated[
        bool, typer.Option("--with-features", help="Add what the model's last layer sees, for search and clustering.")
    ] = False,
    summary: Annotated[Path | None, typer.Option("--summary", help="Write the closing counts as JSON too.")] = None,
    fail_on_error_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Exit with 1 only when more than this share of inputs failed.")
    ] = 0.0,
    engine: EngineChoice = EngineOption.local,
    ray_address: RayAddress = None,
    streams: Streams = None,
    models: Models = Path("models"),
    runtime: Runtime = RuntimeOption.onnx,
    device: Device = DeviceOption.auto,
) -> None:
    """Score pictures, a row for each, errors included. Ended early, the same command goes on where it stopped."""
    from scoring.arguments import refuse_one_file_twice, source_of
    from scoring.progress import progress_on
    from scoring.rows import Settings
    from scoring.run import score as run
    from scoring.sinks import FileSink, StreamSink

    refuse_one_file_twice(sources, output=output, summary=summary)
    source = source_of(sources, column=column, base=base, null=null)
    # An output or summary that cannot be is refused before a model is loaded.
    if summary:
        summary.open("a").close()
    sink = FileSink(output, format, overwrite=overwrite, restart=restart) if output else StreamSink(format or "jsonl")
    if summary and summary.is_file():
        summary.unlink()  # so that one that is there is this run's
    settings = Settings(top_k=top_k, content_hash=content_hash, logits=with_logits, features=with_features)
    with engine_of(
        engine, ray_address, settings, models=models, model=model, runtime=runtime, device=device, streams=streams
    ) as scores:
        result = replace(run(source, scores, sink, progress_on(messages)), tolerated=fail_on_error_rate)
    messages.print(str(result), markup=False)
    if summary:
        summary.write_text(result.to_json() + "\n", encoding="utf-8")
    raise typer.Exit(result.exit_status)


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
