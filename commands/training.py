"""From photos to a published model: `petalpaw train`, `parity`, `publish`; `export` is in exporting.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from commands.options import (
    INTERRUPTED,
    SOME_FAILED,
    Backbone,
    Changes,
    DataRoot,
    Device,
    DeviceOption,
    DryRun,
    FindRate,
    ModelName,
    Models,
    RateStage,
    Recipe,
    RunFolder,
    RuntimeOption,
    Strategy,
    messages,
)
from commands.outline import show_outline
from commands.own import Own, recipe_for
from commands.rates import suggest_rates
from inference import torchrun
from inference.errors import DataInvalid

app = typer.Typer()


@app.command(epilog="Example: petalpaw train --data photos/ --weights mobilenet_v2.pth")
def train(
    recipe: Recipe = None,
    data: DataRoot = None,
    weights: Annotated[Path | None, typer.Option(help="A state dict to start from, instead of the recipe's.")] = None,
    changes: Changes = None,
    strategy: Strategy = None,
    backbone: Backbone = None,
    name: ModelName = None,
    run: Annotated[Path | None, typer.Option(help="The run folder to make.", show_default="runs/NAME")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with a run that was stopped.")] = None,
    device: Device = DeviceOption.auto,
    workers: Annotated[int | None, typer.Option(min=0, help="Loader processes; default: by the CPU budget.")] = None,
    dry_run: DryRun = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write event files to RUN/tensorboard.")] = False,
    find_rate: FindRate = False,
    stage: RateStage = None,
) -> None:
    """Train a network on labelled photos and leave a run folder with weights, figures and pictures.

    Without a recipe one is chosen for the photos in --data: one folder per class, or train, val and test folders with
    class folders in each.
    """
    own = Own(strategy, backbone, name)
    named = recipe or run or weights or changes or own.asked
    for wrong, says in (
        (dry_run and find_rate, "--dry-run only shows, --find-rate sweeps the learning rate; choose one"),
        (stage is not None and not find_rate, "--stage belongs to --find-rate"),
        (tensorboard and (dry_run or find_rate), "--tensorboard belongs to training, not to --dry-run or --find-rate"),
        (resume and (named or find_rate or dry_run), "a resumed run has its recipe, weights and folder already"),
        (not (resume or recipe or data), "name photos with --data, or a recipe, or a run with --resume"),
    ):
        if wrong:
            raise typer.BadParameter(says)
    # Only now: torch takes seconds.
    from training.finetune import train as finetune
    from training.run import read_record

    if resume is not None:
        record, chosen = read_record(resume)
        data, run = data or Path(record.data_root), resume
    else:
        data = data or _named_sets(recipe or "", changes or (), fetching=not dry_run and torchrun.processes() == 1)
        chosen = recipe_for(recipe, data, own, changes or (), weights)
        run = run or Path("runs") / f"{chosen.name}{'-rates' if find_rate else ''}"
    if find_rate:
        suggest_rates(chosen, data, weights, run, stage, device.value, workers)
        return
    if dry_run:
        show_outline(chosen, data, weights, device.value)
        return
    again = resume is not None
    result = finetune(
        chosen, data, weights, run, resume=again, device=device.value, workers=workers, tensorboard=tensorboard
    )
    if result.status == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if torchrun.rank() == 0:
        typer.echo(result.folder)


def _named_sets(recipe: str, changes: Sequence[str], fetching: bool) -> Path:
    """Where the public sets that a recipe names lie, fetched if need be. Raises BadParameter where it names none."""
    from training.datasets.store import DATA_ROOT, fetch_all
    from training.recipe import load_recipe

    sets = load_recipe(recipe, changes=changes).data.sets
    if not sets:
        raise typer.BadParameter(f"say with --data where the photos of {recipe} are; it names no public data set")
    try:
        load_recipe(recipe, DATA_ROOT, changes)  # whatever else is wrong ends here, before a long download
    except DataInvalid:
        if fetching:
            fetch_all(sets, DATA_ROOT)
    return DATA_ROOT


@app.command(epilog="Example: petalpaw parity runs/flowers --data photos/")
def parity(
    run: RunFolder,
    data: Annotated[
        Path | None, typer.Option(help="Where the photos are now; default: where training had them.")
    ] = None,
    photos: Annotated[int, typer.Option(min=1, help="How many validation photos to compare.")] = 128,
    large: Annotated[
        Path | None,
        typer.Option(help="For a decoder that reduces large photos: a folder of such, labelled or not."),
    ] = None,
    runtime: Annotated[
        list[RuntimeOption] | None, typer.Option(help="A further runtime to compare; auto: all that auto chooses from.")
    ] = None,
) -> None:
    """Compare the exported files with PyTorch eager on validation photos and golden inputs; exit 1 when they differ."""
    from inference.repository import EXPORTED, Artifact
    from inference.runtimes.registry import AUTOMATIC, INT8_RUNTIMES
    from training.drafts import compare_decoders, files_in
    from training.parity import check, report
    from training.run import Run

    opened = Run.open(run)
    artifact = Artifact.open(run / EXPORTED)
    further = [name for each in runtime or () for name in AUTOMATIC.get(each.value, (each.value,))]
    if set(further) & set(INT8_RUNTIMES):
        raise typer.BadParameter("int8 is compared by `petalpaw export --precision int8`, whose figures are taken over")
    if large and artifact.manifest.preprocessing.decoder == "pillow":
        raise typer.BadParameter("--large belongs to a decoder that reduces large photos; the artifact's is exact")
    reduced = files_in(large) if large else []  # before the comparison, which a mistyped name shall not cost
    whole = Column("runtime", no_wrap=True)
    table = Table(whole, "device", "batch", "max |Δlogit|", "mean |Δlogit|", "top-1 agreement", "pictures")
    comparisons = []
    compared = opened.photos("validation", photos, data)
    for item in check(artifact, opened.module(), compared, further):
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
    decoder = compare_decoders(artifact, [*compared, *reduced], photos)
    if decoder:
        messages.print(str(decoder), markup=False)
    result = report(artifact, comparisons, decoder)
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
