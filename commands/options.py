"""What several commands share: their options, their exit statuses, the model that they name."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from inference import torchrun
from inference.errors import ParameterInvalid

if TYPE_CHECKING:
    from inference.classifier import Classifier
    from inference.repository import Artifact

SOME_FAILED, WRONG_USAGE, NOTHING_DONE, INTERRUPTED = 1, 2, 3, 130

messages = Console(stderr=True, highlight=False, soft_wrap=True, quiet=torchrun.rank() > 0)
"""Progress and messages; stdout is for data."""


class DeviceOption(StrEnum):
    """What `--device` takes; `auto` is CUDA where it works, else the CPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class FormatOption(StrEnum):
    """What `--format` takes."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


class RuntimeOption(StrEnum):
    """What `--runtime` takes."""

    auto = "auto"
    auto_int8 = "auto-int8"
    onnx = "onnx"
    tensorrt = "tensorrt"
    torchscript = "torchscript"
    openvino = "openvino"
    openvino_bf16 = "openvino-bf16"
    onnx_int8 = "onnx-int8"
    openvino_int8 = "openvino-int8"


class StrategyOption(StrEnum):
    """What `--strategy` takes."""

    features = "features"
    svm = "svm"
    logistic = "logistic"
    finetune = "finetune"
    scratch = "scratch"


Strategy = Annotated[
    StrategyOption | None,
    typer.Option("--strategy", help="Without a recipe: how to train.", show_default="by the number of photos"),
]
Backbone = Annotated[
    str | None, typer.Option("--backbone", help="Without a recipe: the network.", show_default="mobilenet_v2")
]
ModelName = Annotated[
    str | None, typer.Option("--name", help="Without a recipe: the model's name.", show_default="the folder's")
]
Recipe = Annotated[
    str | None, typer.Argument(help="A recipe file or a shipped recipe's name; none: chosen for the photos.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe, as stages.0.epochs=3."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="The folder that the recipe's data folders lie in; public sets that it names are fetched into ./data.",
    ),
]
RunData = Annotated[
    Path | None, typer.Option("--data", help="For a run: where its photos are now; default: where training had them.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show layers, what trains, parameters, memory and time.")]
FindRate = Annotated[
    bool, typer.Option("--find-rate", help="Only sweep the learning rate: RUN/rates.csv and rates.png.")
]
RateStage = Annotated[
    str | None,
    typer.Option("--stage", help="Of which stage; default: the first that trains more than the head."),
]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE…",
        help="Files, folders, patterns, tables (.csv .tsv .jsonl .parquet), shards (.tar …), addresses (s3://, gs://, "
        "http://, …); `-` reads paths from stdin.",
    ),
]
Column = Annotated[str | None, typer.Option("--column", help="A table's column of paths or pictures.")]
Base = Annotated[
    str | None, typer.Option("--base", help="Where a table's relative paths begin; default: the table's folder.")
]
TrueLabels = Annotated[
    str | None,
    typer.Option("--labels", help="A table's column of true classes, by name or index; default: the folders' names."),
]
Models = Annotated[
    Path,
    typer.Option(
        "--models",
        envvar="PETALPAW_MODELS",
        help="The model repository.",
        show_default="./models",
        readable=False,  # the repository itself says what it cannot read, and what to do
    ),
]
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="NAME or NAME/VERSION; needed when there are several.")
]
Runtime = Annotated[
    RuntimeOption,
    typer.Option("--runtime", envvar="PETALPAW_RUNTIME", help="What runs the model; auto: the fastest that passes."),
]
Device = Annotated[DeviceOption, typer.Option("--device", envvar="PETALPAW_DEVICE", help="auto: CUDA where it works.")]
TopK = Annotated[int, typer.Option("--top-k", "-k", min=1, help="How many classes per picture, most probable first.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as `petalpaw train` made it.")]


def artifact_of(models: Path, model: str | None) -> "Artifact":
    """The named model, or the only one. Raises ParameterInvalid when there are several and none is named."""
    from inference.repository import Repository

    repository = Repository(models)
    if model is not None:
        return repository.open(*name_and_version(model))
    artifacts = repository.latest()
    if len(artifacts) > 1:
        raise ParameterInvalid(f"name a model with --model: {', '.join(each.name for each in artifacts)}")
    return artifacts[0]


def classifier_of(
    models: Path,
    model: str | None,
    runtime: RuntimeOption,
    device: DeviceOption,
    batch_sizes: tuple[int, ...] = (),
) -> "Classifier":
    """Load the named model, or the only one, as `artifact_of` finds it."""
    from inference.classifier import Classifier

    artifact = artifact_of(models, model)
    return Classifier.load(artifact, runtime=runtime.value, device=device.value, batch_sizes=batch_sizes)


def name_and_version(model: str) -> tuple[str, str | None]:
    """`catdog/2` as ("catdog", "2"), `catdog` as ("catdog", None): the default version."""
    name, _, version = model.partition("/")
    return name, version or None
