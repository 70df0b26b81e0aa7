"""Petalpaw in other shapes, to choose between: the processes and what passes between them differ, nothing else."""

import os
from pathlib import Path

from contenders import APPS, CONTENDERS, Contender

_ROOT = Path(__file__).parents[2]
_PETALPAW = CONTENDERS["petalpaw"]


def _shape(name: str, target: str, streams: int) -> Contender:
    """`target` is served by BentoML, each worker of Petalpaw with so many streams."""

    def command(python: Path, port: int) -> list[str]:
        return [str(python), "-m", "bentoml", "serve", target, "--host", "127.0.0.1", "--port", str(port)]

    environment = {
        "PYTHONPATH": f"{APPS}{os.pathsep}{_ROOT}",
        "PETALPAW_MODELS": str(_ROOT / "models"),
        "PETALPAW_STREAMS": str(streams),
    }
    return Contender(
        name, (), command, _PETALPAW.path, _PETALPAW.body, _PETALPAW.label, _PETALPAW.ready, environment=environment
    )


_CORES = len(os.sched_getaffinity(0))
SHAPES = {
    each.name: each
    for each in (
        _shape("petalpaw-one-process", "service.app:Petalpaw", _CORES),
        _shape("petalpaw-workers", "shape_workers:Petalpaw", 1),
        _shape("petalpaw-gateway", "shape_gateway:Gateway", _CORES),
    )
}
