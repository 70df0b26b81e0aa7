"""What runs on a cluster's nodes: an actor that loads the classifier once and scores block after block."""

import pickle
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.classifier import Classifier
from inference.errors import ClusterUnavailable, SourceGone
from inference.repository import Artifact
from inference.runtimes.base import Device
from scoring.local import LocalEngine
from scoring.rows import Row, Settings
from scoring.scorer import CUDA_BATCH, Scorer
from scoring.witnesses import Witnesses, share

if TYPE_CHECKING:
    import pyarrow


class Actor:
    """Loads the classifier once, then scores block after block."""

    def __init__(self, model: "Model", fingerprint: Mapping[str, Any], witnesses: Any = None) -> None:
        """Raises ClusterUnavailable where this node would give other rows than the one that proved the model."""
        if witnesses is not None:
            share(_SharedWitnesses(witnesses))
        self._engine = LocalEngine(model.scorer(), streams=model.streams)
        if self._engine.fingerprint != fingerprint:
            raise ClusterUnavailable(
                f"the cluster's nodes differ: one has {fingerprint}, another {self._engine.fingerprint}; give all of "
                "them the same image and the same kind of device"
            )

    def __call__(self, block: "pyarrow.Table") -> "pyarrow.Table":
        """A table of one column, `item`, of pickled inputs; returns one of pickled outcomes, `outcome`."""
        import pyarrow

        items = map(pickle.loads, block["item"].to_pylist())
        return pyarrow.table({"outcome": [pickle.dumps(each) for each in _outcomes(self._engine.rows(items))]})


def _outcomes(rows: Iterator[Row]) -> Iterator[Row | SourceGone]:
    """The rows, and after them the error where the source went away: those before it are good."""
    try:
        yield from rows
    except SourceGone as error:
        yield error


class _SharedWitnesses(Witnesses):
    """An actor's witnesses, and those of all: a server that is silent here may have given something to another."""

    def __init__(self, shared: Any) -> None:
        super().__init__()
        self._shared = shared

    def trust(self, address: str) -> bool:
        """Tell the others of the first address of a server."""
        is_first = super().trust(address)
        if is_first:
            self._shared.trust.remote(address)
        return is_first

    def of(self, address: str) -> str | None:
        """Ask the others where this actor knows none."""
        import ray

        witness: str | None = super().of(address) or ray.get(self._shared.of.remote(address))
        return witness


@dataclass(frozen=True)
class Model:
    """What a node needs to load the classifier; `files` refers to the artifact's, by name, in Ray's object store."""

    files: Any
    settings: Settings
    runtime: str
    device: Device
    streams: int

    def scorer(self) -> Scorer:
        """On a node: load the artifact, its digests verified there. Raises as Artifact.open and Classifier.load do."""
        import ray

        with tempfile.TemporaryDirectory() as folder:
            for name, data in ray.get(self.files).items():
                (Path(folder) / name).write_bytes(data)
            artifact = Artifact.open(Path(folder))
            classifier = Classifier.load(
                artifact,
                runtime=self.runtime,
                device=self.device,
                streams=self.streams,
                batch_sizes=(CUDA_BATCH,),
            )
            return Scorer(classifier, self.settings)


def prove(model: Model) -> tuple[int, Mapping[str, object]]:
    """On a node: the batch size and the fingerprint of the rows that it would give. Raises as `Model.scorer`."""
    scorer = model.scorer()
    return scorer.batch_size, scorer.fingerprint
