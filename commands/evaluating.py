"""`petalpaw evaluate`: a run on its own photos, or a published model on labelled ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.engines import EngineChoice, EngineOption, RayAddress, Streams, engine_of
from commands.options import (
    SOME_FAILED,
    Base,
    Column,
    Device,
    DeviceOption,
    Model,
    Models,
    RunData,
    Runtime,
    RuntimeOption,
    TrueLabels,
    artifact_of,
    messages,
)

if TYPE_CHECKING:
    from scoring.sources import Source
    from scoring.truth import Truth

app = typer.Typer()


@app.command(
    epilog="Example: petalpaw evaluate photos/test --model flowers --output figures; petalpaw evaluate runs/flowers"
)
def evaluate(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE…|RUN", help="Labelled pictures, as `score` takes them; or one run folder."),
    ],
    labels: TrueLabels = None,
    column: Column = None,
    base: Base = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new folder for figures, mistakes and pictures.")
    ] = None,
    model: Model = None,
    engine: EngineChoice = EngineOption.local,
    ray_address: RayAddress = None,
    streams: Streams = None,
    models: Models = Path("models"),
    runtime: Runtime = RuntimeOption.onnx,
    device: Device = DeviceOption.auto,
    data: RunData = None,
) -> None:
    """Measure a published model on labelled pictures, through the path that serves; or a run's weights anew.

    A run is measured on its own validation and test photos, and calibrated and drawn again.
    """
    run = Path(targets[0]) if len(targets) == 1 and (Path(targets[0]) / "run.json").is_file() else None
    if run is None and data is not None:
        raise typer.BadParameter(f"--data belongs to a run, and {' '.join(targets)} is none: it has no run.json")
    if run is not None:
        if model or labels or column or base or output or engine is not EngineOption.local:
            raise typer.BadParameter(f"{run} is a run: it has its own model, photos and folder")
        _evaluate_run(run, data, device)
        return
    if "-" in targets:
        raise typer.BadParameter("paths on stdin come once, and evaluate looks twice; name the files themselves")
    from scoring.arguments import refuse_address, source_of
    from scoring.judge import Judge
    from scoring.progress import progress_on
    from scoring.rows import Settings
    from scoring.run import score

    if output is not None:
        refuse_address("--output", output)
    source = source_of(targets, column=column, base=base)
    names = artifact_of(models, model).manifest.labels
    judge = Judge(_truth(source, labels, targets[0], names), names, output)
    with engine_of(
        engine, ray_address, Settings(), models=models, model=model, runtime=runtime, device=device, streams=streams
    ) as scores:
        summary = score(source, scores, judge, progress_on(messages))
    if summary.interrupted:
        messages.print("Interrupted: a part of the pictures gives no figures")
        raise typer.Exit(summary.exit_status)
    judgement = judge.judgement()
    if output is not None:
        judgement.write(output, judge.scored, source.description)
    messages.print(str(judgement), markup=False)
    typer.echo(judgement.as_json(judge.scored), nl=False)
    raise typer.Exit(summary.exit_status or (SOME_FAILED if judgement.unlabelled else 0))


def _truth(source: "Source", labels: str | None, location: str, names: Sequence[str]) -> "Truth":
    """By the column `labels` of the table at `location`, or by folders. Raises BadParameter, DataInvalid."""
    from scoring.tables import Table
    from scoring.truth import column_truth, folder_truth

    if labels is None:
        return folder_truth(source, names)
    if not isinstance(source, Table):
        raise typer.BadParameter("--labels names a column of one table: a .csv, .tsv, .jsonl or .parquet file")
    return column_truth(Table(location, labels), names)


def _evaluate_run(run: Path, data: Path | None, device: DeviceOption) -> None:
    from training.assess import assess_again

    evaluated = assess_again(run, data, device.value)
    typer.echo((evaluated.folder / "metrics.json").read_text("utf-8"), nl=False)
