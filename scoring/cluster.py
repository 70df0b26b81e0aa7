"""The engine for a cluster: Ray Data hands blocks of inputs to actors, each of which runs the local engine.

    inputs → blocks → actors: classifier loaded once, then a LocalEngine per block → blocks of rows → rows in order

Blocks come back in the order in which they went out, so the rows are the local engine's, row for row. When an actor or
its node dies, Ray starts another and computes the blocks that were lost once more.
"""

import logging
import os
import pickle
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from inference.budget import whole_cores
from inference.classifier import Classifier
from inference.errors import ClusterUnavailable, PackageMissing, PetalpawError, SourceGone
from inference.manifest import MANIFEST
from inference.repository import Artifact
from inference.runtimes.base import Device, DeviceChoice
from scoring.local import Guarded, LocalEngine
from scoring.remote import RemoteItem, Witnesses, share
from scoring.rows import Row, Settings
from scoring.scorer import CUDA_BATCH, Scorer
from scoring.sources import Item

if TYPE_CHECKING:
    import pyarrow

_log = logging.getLogger(__name__)

BLOCK = 2 * CUDA_BATCH
"""Inputs that an actor takes at once, and that are computed again when it dies. Whole batches, as in a local run."""

WAVE = 1_000_000
WAVE_BYTES = 2 * 2**30
"""Inputs, and bytes of them, that are handed to Ray at once. More need no more memory, but new actors in between."""

PATIENCE = 600.0
"""Seconds without any progress after which the run ends: a cluster that grows on demand finds room for the first actor
in that time, and a picture that ends every process that decodes it is not tried for ever.
"""

ENDING_SECONDS = 10.0
"""Time that Ray Data's threads have to end: Ray itself waits for 2 seconds, which a busy machine may exceed."""

KNOCK_SECONDS = 10.0
"""Time that a cluster's port has to answer."""


class ClusterEngine:
    """Scores on a Ray cluster, or on Ray processes of this machine where no address is given.

    Every node needs the driver's versions of Petalpaw and Ray, and must reach the inputs: remote addresses, or folders
    mounted alike. The model is sent to the nodes and verified there.
    """

    def __init__(
        self,
        artifact: Artifact,
        settings: Settings | None = None,
        *,
        address: str | None = None,
        runtime: str = "onnx",
        device: DeviceChoice = "auto",
    ) -> None:
        """Connect, and prove the model on a node. `auto` is CUDA where the cluster has GPUs.

        Raises PackageMissing without Ray, ClusterUnavailable, and what loading the model raises.
        """
        self._ray = _connected(address)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = sum(node.get("GPU", 0) for node in nodes)
        chosen: Device = "cuda" if device == "cuda" or (device == "auto" and gpus) else "cpu"
        if chosen == "cuda" and not gpus:
            _log.warning("the cluster has no GPU yet; waiting up to %.0f s for one", PATIENCE)
        # An actor per core; on GPUs an actor per GPU, with its node's share of cores to decode for it.
        self._share = {"num_cpus": 1}
        if chosen == "cuda":
            cores = [node.get("CPU", 0) // node["GPU"] for node in nodes if node.get("GPU")]
            self._share = {"num_cpus": max(1, int(min(cores, default=1))), "num_gpus": 1}
        settings = settings or Settings()
        files = {name: (artifact.folder / name).read_bytes() for name in (MANIFEST, *artifact.manifest.files)}
        model = _Model(self._ray.put(files), settings, runtime, chosen, self._share["num_cpus"])
        self.columns: Sequence[str] = settings.columns
        self.batch_size: int
        self.fingerprint: Mapping[str, Any]
        with _explained(self._ray):
            proof = self._ray.remote(_prove).options(**self._share).remote(model)
            self.batch_size, self.fingerprint = self._ray.get(proof, timeout=PATIENCE)
        self._model = replace(model, runtime=self.fingerprint["runtime"])
        self._witnesses: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the cluster, which ends its actors; one that was started for this run ends as well."""
        with _undisturbed():
            self._ray.shutdown()

    def rows(self, items: Iterable[Item], stop: threading.Event | None = None) -> Generator[Row]:
        """One row per input, in order. Raises SourceGone or ClusterUnavailable.

        Once `stop` is set, no further block is waited for: the last inputs taken stay without rows. Inputs before an
        error of `items` itself get theirs.
        """
        stop = stop or threading.Event()
        source = Guarded(items)
        blocks = _blocks(source)
        while not stop.is_set() and (wave := self._wave(blocks)):
            with closing(self._scored(wave)) as scored:
                for rows in scored:
                    yield from rows
                    if stop.is_set():
                        break
        if source.error is not None:
            raise source.error

    def _wave(self, blocks: Iterator[list[Item]]) -> list[Any]:
        """References to the next blocks in Ray's object store; none at the end."""
        import pyarrow

        wave, inputs, size = [], 0, 0
        for block in blocks:
            pickled = [pickle.dumps(item) for item in block]
            wave.append(self._ray.put(pyarrow.table({"item": pickled})))
            inputs += len(block)
            size += sum(map(len, pickled))
            if self._witnesses is None and any(isinstance(item, RemoteItem) for item in block):
                self._witnesses = self._shared_witnesses()
            if inputs >= WAVE or size >= WAVE_BYTES:
                break
        return wave

    def _shared_witnesses(self) -> Any:
        """What all actors of the run know of servers, on this node: without it, the run cannot go on in any case."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}
        return self._ray.remote(Witnesses).options(**options).remote()

    def _scored(self, wave: list[Any]) -> Generator[list[Row]]:
        data = self._ray.data
        scored = data.from_arrow_refs(wave).map_batches(
            _Actor,
            fn_constructor_args=(self._model, self.fingerprint, self._witnesses),
            batch_size=None,
            batch_format="pyarrow",
            # Two blocks at once: the next is read while the last pictures of one are inferred.
            compute=data.ActorPoolStrategy(max_concurrent_calls_per_actor=2, enable_true_multi_threading=True),
            **self._share,
        )
        others = frozenset(threading.enumerate())
        batches = iter(scored.iter_batches(batch_size=None, batch_format="pyarrow"))
        try:
            with _explained(self._ray):
                for batch in batches:
                    outcomes = [pickle.loads(each) for each in batch["outcome"].to_pylist()]  # noqa: S301 – our own actor's
                    gone = outcomes.pop() if isinstance(outcomes[-1], SourceGone) else None
                    yield outcomes
                    if gone is not None:
                        raise gone
        finally:
            with _undisturbed():
                batches.close()
                _wait_for_threads(others)


def _blocks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Inputs, up to BLOCK at a time, parted where a local run's batches end."""
    block = []
    for item in items:
        block.append(item)
        if (item.id + 1) % BLOCK == 0:
            yield block
            block = []
    if block:
        yield block


class _Actor:
    """Loads the classifier once, then scores block after block."""

    def __init__(self, model: "_Model", fingerprint: Mapping[str, Any], witnesses: Any = None) -> None:
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

    def trust(self, address: str) -> None:
        """Tell the others of the first address of a server."""
        if super().of(address) is None:
            self._shared.trust.remote(address)
        super().trust(address)

    def of(self, address: str) -> str | None:
        """Ask the others where this actor knows none."""
        import ray

        witness: str | None = super().of(address) or ray.get(self._shared.of.remote(address))
        return witness


@dataclass(frozen=True)
class _Model:
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


def _prove(model: _Model) -> tuple[int, Mapping[str, object]]:
    scorer = model.scorer()
    return scorer.batch_size, scorer.fingerprint


def _connected(address: str | None) -> Any:
    """Ray's module, connected, quiet, and telling nobody of its use. Raises PackageMissing, ClusterUnavailable."""
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        _knock(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise PackageMissing(f"--engine ray needs a package ({error}); install petalpaw[cluster]") from error
    own: dict[str, Any] = {} if address else {"num_cpus": whole_cores(), "include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:
        where = f"no Ray cluster can be joined at {address}" if address else "Ray did not start on this machine"
        raise ClusterUnavailable(f"{where} ({_first_line(error)}); check versions and load, then try again") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray's own would end with status 15
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = PATIENCE
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray


def _knock(address: str) -> None:
    """Ray itself would try for minutes where nobody answers. Raises ClusterUnavailable."""
    if "://" in address:
        raise ClusterUnavailable(
            f"{address} leads to Ray's client or job server, but the run itself must be on the cluster; name HOST:PORT "
            "from one of its nodes, or submit the same command with `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    if not port.isdecimal():  # "auto", which Ray looks up
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterUnavailable(
            f"no Ray cluster answers at {address} ({error}); start one with `ray start --head`, or check the address"
        ) from error


def _wait_for_threads(others: frozenset[threading.Thread]) -> None:
    """Give Ray Data's threads time to end: one that calls Ray after its shutdown ends the process, with status 1."""
    until = time.monotonic() + ENDING_SECONDS
    for thread in threading.enumerate():
        # Its prefetcher is never ended, and asleep once nothing is read any more.
        if thread not in others and thread.name != "Prefetcher":
            thread.join(max(0.0, until - time.monotonic()))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold further Ctrl-C and SIGTERM off for the seconds in which Ray ends: half ended, it leaves processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) or signal.SIG_DFL for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _explained(ray: Any) -> Iterator[None]:
    """Petalpaw's own errors as they were raised on a node, and Ray's as ClusterUnavailable."""
    try:
        yield
    except ray.exceptions.GetTimeoutError:
        raise ClusterUnavailable(
            f"the cluster had no room for an actor within {PATIENCE:.0f} s; give it nodes with free cores (or GPUs)"
        ) from None
    except (ray.exceptions.RayError, ray.data.exceptions.ExecutionTimeoutError) as error:
        own = _own(error)
        if own is not None:
            raise own from error
        raise ClusterUnavailable(
            f"the cluster gave up ({_first_line(error)}); when it is well, run the same command again"
        ) from error


def _own(error: BaseException | None) -> PetalpawError | None:
    """The error of ours that Ray's was made of, if any."""
    while error is not None:
        cause = getattr(error, "cause", None) or error.__cause__
        if isinstance(cause, PetalpawError):
            return cause
        error = cause
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
