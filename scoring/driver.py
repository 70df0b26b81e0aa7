"""The process that drives Ray for a run. It only passes on: blocks of pickled inputs to actors, pickled rows back.

It is a process of its own because Ray ends the one that it cannot go on in, without a word in Python: the node's Ray
processes die, or the cluster's head is away for a minute. So the run itself lives on, says so and keeps its rows.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum, auto
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, Self

from inference.budget import whole_cores
from inference.errors import ClusterUnavailable, PackageMissing, PetalpawError
from inference.manifest import MANIFEST
from inference.repository import Artifact
from inference.runtimes.base import Device, DeviceChoice
from scoring.actor import Actor, Model, prove
from scoring.rows import Settings
from scoring.witnesses import Witnesses

WAVE = 1_000_000
WAVE_BYTES = 2 * 2**30
"""Inputs, and bytes of them, that are handed to Ray at once. More need no more memory, but new actors in between."""

PATIENCE = 600.0
"""Seconds without any progress after which the run ends: a cluster that grows on demand finds room for the first actor
in that time, and a picture that ends every process that decodes it is not tried for ever.
"""

THREAD_SECONDS = 10.0
"""Time that Ray Data's threads have to end: Ray itself waits for 2 seconds, which a busy machine may exceed."""

ENDING_SECONDS = 30.0
"""Time that all of Ray has to end, then it is killed."""


@dataclass(frozen=True)
class Order:
    """What is to be scored with, and where: `address` None is Ray processes of this machine."""

    artifact: Artifact
    settings: Settings
    address: str | None
    runtime: str
    device: DeviceChoice


@dataclass(frozen=True)
class Block:
    """Inputs, each pickled; `remote` says that servers have to give some of them."""

    inputs: list[bytes]
    remote: bool


class Turn(Enum):
    """What the driver says besides rows: it joined, wants the next block (or None at the end), or gave all rows."""

    JOINED = auto()
    WANTED = auto()
    DONE = auto()


def drive(pipe: "connection.Connection[Any, Any]", log: str, order: Order) -> None:
    """What the process does until the pipe's other end ends it, by SIGTERM or by its own death.

    It says JOINED, the batch size and the fingerprint, then takes blocks and says rows, as `Driver.score` describes. An
    error of ours is said, too. What Ray writes goes to the file `log`; a plain string is a warning for the user.
    """
    for number in (signal.SIGINT, signal.SIGHUP):  # for the run alone, with which this process ends in order
        signal.signal(number, signal.SIG_IGN)
    _write_to(log)
    threading.Thread(target=_end_with_parent, args=(log,), daemon=True).start()
    with suppress(KeyboardInterrupt, EOFError, BrokenPipeError), Driver(order) as driver:
        try:
            driver.join()
            pipe.send(Turn.JOINED)
            pipe.send(driver.prove(pipe.send))
            while True:
                driver.score(pipe)
        except PetalpawError as error:
            pipe.send(error)
            pipe.recv()


class Driver:
    """A connection to a cluster, and the model on it. A context manager; left, actors end, and a cluster of its own."""

    def __init__(self, order: Order) -> None:
        self._ray: Any = None
        self._order = order
        self._witnesses: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # half ended, Ray leaves processes behind
        if self._ray is not None:
            self._ray.shutdown()

    def join(self) -> None:
        """Connect. Raises PackageMissing, ClusterUnavailable."""
        self._ray = _connected(self._order.address)

    def prove(self, say: Callable[[str], None]) -> tuple[int, Mapping[str, Any]]:
        """Prove the model on a node: the batch size and the fingerprint of its rows. Warnings are told to `say`.

        Raises ClusterUnavailable, and what loading the model raises.
        """
        artifact, device = self._order.artifact, self._order.device
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = sum(node.get("GPU", 0) for node in nodes)
        chosen: Device = "cuda" if device == "cuda" or (device == "auto" and gpus) else "cpu"
        if chosen == "cuda" and not gpus:
            say(f"the cluster has no GPU yet; waiting up to {PATIENCE:.0f} s for one")
        # An actor per core; on GPUs an actor per GPU, with its node's share of cores to decode for it.
        self._share = {"num_cpus": 1}
        if chosen == "cuda":
            cores = [node.get("CPU", 0) // node["GPU"] for node in nodes if node.get("GPU")]
            self._share = {"num_cpus": max(1, int(min(cores, default=1))), "num_gpus": 1}
        files = {name: (artifact.folder / name).read_bytes() for name in (MANIFEST, *artifact.manifest.files)}
        share = self._share["num_cpus"]
        model = Model(self._ray.put(files), self._order.settings, self._order.runtime, chosen, share)
        with _explained(self._ray):
            proof = self._ray.remote(prove).options(**self._share).remote(model)
            batch_size, self._fingerprint = self._ray.get(proof, timeout=PATIENCE)
        self._model = replace(model, runtime=self._fingerprint["runtime"])
        return batch_size, self._fingerprint

    def score(self, pipe: "connection.Connection[Any, Any]") -> None:
        """Score what the pipe gives: say WANTED for every block, a list of pickled outcomes for it, and DONE.

        After a list the pipe says whether to go on. Raises ClusterUnavailable.
        """
        going = pipe.recv()
        blocks = _blocks(pipe)
        while going and (wave := self._wave(blocks)):
            with closing(self._scored(wave)) as scored:
                for outcomes in scored:
                    pipe.send(outcomes)
                    going = pipe.recv()
                    if not going:
                        break
        pipe.send(Turn.DONE)

    def _wave(self, blocks: Iterator[Block]) -> list[Any]:
        """References to the next blocks in Ray's object store; none at the end."""
        import pyarrow

        wave, inputs, size = [], 0, 0
        for block in blocks:
            wave.append(self._ray.put(pyarrow.table({"item": block.inputs})))
            inputs += len(block.inputs)
            size += sum(map(len, block.inputs))
            if self._witnesses is None and block.remote:
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

    def _scored(self, wave: list[Any]) -> Generator[list[bytes]]:
        data = self._ray.data
        scored = data.from_arrow_refs(wave).map_batches(
            Actor,
            fn_constructor_args=(self._model, self._fingerprint, self._witnesses),
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
                    yield batch["outcome"].to_pylist()
        finally:
            batches.close()
            _wait_for_threads(others)


def _blocks(pipe: "connection.Connection[Any, Any]") -> Iterator[Block]:
    """What the pipe gives when it is asked, until that is None."""
    while True:
        pipe.send(Turn.WANTED)
        block: Block | None = pipe.recv()
        if block is None:
            return
        yield block


def _write_to(log: str) -> None:
    """Let whatever this process writes, Ray's core and its threads included, go to the end of a file."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def _end_with_parent(log: str) -> None:
    """A run that was killed leaves no driver behind, and through it no actor."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    Path(log).unlink(missing_ok=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ENDING_SECONDS)
    os._exit(1)


def _connected(address: str | None) -> Any:
    """Ray's module, connected, quiet, and telling nobody of its use. Raises PackageMissing, ClusterUnavailable."""
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
    signal.signal(signal.SIGTERM, _on_sigterm)  # not before: Ray brings a handler of its own
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = PATIENCE
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray


def _on_sigterm(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: half ended, Ray leaves processes behind
    raise KeyboardInterrupt


def _wait_for_threads(others: frozenset[threading.Thread]) -> None:
    """Give Ray Data's threads time to end: one that calls Ray after its shutdown ends the process, with status 1."""
    until = time.monotonic() + THREAD_SECONDS
    for thread in threading.enumerate():
        # Its prefetcher is never ended, and asleep once nothing is read any more.
        if thread not in others and thread.name != "Prefetcher":
            thread.join(max(0.0, until - time.monotonic()))


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
