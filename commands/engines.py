"""Which engine scores, as `--engine` and its companions say."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import INTERRUPTED, DeviceOption, RuntimeOption, artifact_of, classifier_of

if TYPE_CHECKING:
    from scoring.rows import Settings
    from scoring.run import Engine


class EngineOption(StrEnum):
    """What `--engine` takes."""

    local = "local"
    ray = "ray"


EngineChoice = Annotated[EngineOption, typer.Option("--engine", help="local: this machine. ray: a cluster.")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        envvar="RAY_ADDRESS",
        metavar="HOST:PORT",
        help="The cluster for --engine ray.",
        show_default="Ray processes of this machine",
    ),
]
Streams = Annotated[
    int | None,
    typer.Option("--streams", min=1, help="Pictures at once; local only.", show_default="as many as cores"),
]


@contextmanager
def engine_of(
    engine: EngineOption,
    ray_address: str | None,
    settings: "Settings",
    *,
    models: Path,
    model: str | None,
    runtime: RuntimeOption,
    device: DeviceOption,
    streams: int | None,
) -> Iterator["Engine"]:
    """The engine with the named model, or the only one, loaded. Raises BadParameter for options that fit no engine.

    On a cluster sys.stdout is standard error meanwhile: a thread of Ray's prints there, and stdout is for rows alone.
    """
    if engine is EngineOption.local:
        from scoring.local import LocalEngine
        from scoring.scorer import CUDA_BATCH, Scorer

        classifier = classifier_of(models, model, runtime, device, batch_sizes=(CUDA_BATCH,))
        local = LocalEngine(Scorer(classifier, settings), streams=streams)
        try:
            yield local
        except KeyboardInterrupt:
            # The second Ctrl-C: what was committed stays, and Python would wait for threads that may never end.
            os._exit(INTERRUPTED)
        return
    from scoring.cluster import ClusterEngine

    if streams is not None:
        raise typer.BadParameter("--streams belongs to --engine local; a cluster has a stream per core")
    artifact = artifact_of(models, model)
    with (
        redirect_stdout(sys.stderr),
        ClusterEngine(artifact, settings, address=ray_address, runtime=runtime.value, device=device.value) as cluster,
    ):
        yield cluster
