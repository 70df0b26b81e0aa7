"""`petalpaw export`: the files of an artifact, in full precision or with one in 8-bit integers beside it."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import messages

if TYPE_CHECKING:
    from inference.repository import Artifact
    from training.splits import Item

app = typer.Typer()


class PrecisionOption(StrEnum):
    """What `--precision` takes."""

    fp32 = "fp32"
    int8 = "int8"


class CalibrationOption(StrEnum):
    """What `--calibration` takes."""

    minmax = "minmax"
    percentile = "percentile"


@app.command(
    epilog="Example: petalpaw export runs/flowers; petalpaw export models/catdog/1 --precision int8 --data photos/"
)
def export(
    target: Annotated[
        Path,
        typer.Argument(metavar="RUN|ARTIFACT", help="A run folder; for int8 also a published models/NAME/VERSION."),
    ],
    precision: Annotated[
        PrecisionOption, typer.Option(help="int8: also model.int8.onnx, refused unless it says the same.")
    ] = PrecisionOption.fp32,
    data: Annotated[
        Path | None, typer.Option(help="int8: where the photos are now; default: where training had them.")
    ] = None,
    photos: Annotated[
        int | None, typer.Option(min=1, help="int8: how many training photos give the ranges.", show_default="128")
    ] = None,
    calibration: Annotated[CalibrationOption | None, typer.Option(help="int8: how.", show_default="minmax")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="int8: a layer that stays in float32, as features.17.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="int8 of an artifact: its recipe, where that is not a shipped one.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="int8 of an artifact: the folder to make.", show_default="runs/NAME-int8")
    ] = None,
) -> None:
    """Write a finished run's ONNX and TorchScript files and its manifest to RUN/artifact.

    With --precision int8 there is a file in 8-bit integers too, with ranges from training photos. It is kept only where
    it gives the same labels on the validation photos. A published artifact is copied to a new folder first, for
    `petalpaw publish`.
    """
    from inference.manifest import MANIFEST

    published = (target / MANIFEST).is_file()
    if precision is PrecisionOption.fp32:
        if published or data or photos or calibration or exclude or recipe or run:
            raise typer.BadParameter(
                "a published artifact, --data, --photos, --calibration, --exclude, --recipe and --run belong to "
                "--precision int8"
            )
        artifact = _exported(target)
    else:
        if not published and (recipe or run):
            raise typer.BadParameter("--recipe and --run belong to a published artifact; a run has its own")
        artifact, splits, root = _from_artifact(target, data, recipe, run) if published else _from_run(target, data)
        artifact = _with_int8(
            artifact, splits, root, photos or 128, calibration or CalibrationOption.minmax, exclude or []
        )
    for name, entry in artifact.manifest.files.items():
        messages.print(f"{artifact.folder / name}  {entry.size / 1e6:.1f} MB  {entry.sha256[:19]}…")
    typer.echo(artifact.folder)


def _exported(run: Path) -> "Artifact":
    from training.export import export as export_run
    from training.run import Run

    return export_run(Run.open(run))


Source = tuple["Artifact", "dict[str, list[Item]]", Path]
"""An unpublished artifact, the members of its splits, and the folder that their paths begin in."""


def _from_run(run: Path, data: Path | None) -> Source:
    from training.run import Run

    opened = Run.open(run)
    splits = {split: list(opened.items(split)) for split in ("train", "validation")}
    return _exported(run), splits, data or opened.data_root


def _from_artifact(folder: Path, data: Path | None, recipe: str | None, run: Path | None) -> Source:
    from inference.repository import Artifact
    from training.republish import reopened, splits_of

    if data is None:
        raise typer.BadParameter("a published artifact does not know where its photos are; say so with --data")
    published = Artifact.open(folder)
    splits = splits_of(published, recipe, data)
    return reopened(published, run or Path("runs") / f"{published.name}-int8"), splits, data


def _with_int8(
    artifact: "Artifact",
    splits: "dict[str, list[Item]]",
    root: Path,
    photos: int,
    calibration: CalibrationOption,
    exclude: list[str],
) -> "Artifact":
    from training.int8 import add_int8

    train, validation = splits["train"], splits["validation"]
    count = min(photos, len(train))
    even = [train[index * len(train) // count] for index in range(count)]  # over all classes: members come sorted
    made = add_int8(
        artifact,
        [root / item.path for item in even],
        [(root / item.path, item.label) for item in validation],
        calibration=calibration.value,
        exclude=exclude,
    )
    assert made.manifest.quantized
    for figure in made.manifest.quantized.figures:
        messages.print(str(figure), markup=False)
    return made
