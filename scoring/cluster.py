"""The engine for a cluster: Ray Data hands blocks of inputs to actors, each of which runs the local engine.

    inputs → blocks → driver → actors: classifier loaded once, then a LocalEngine per block → driver → rows in order

Blocks come back in the order in which they went out, so the rows are the local engine's, row for row. When an actor or
its node dies, Ray starts another and computes the blocks that were lost once more. When the cluster ends, the driver,
a process of its own, ends with it, and the run does not.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import socket
import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from inference.errors import ClusterUnavailable, PetalpawError, SourceGone
from inference.repository import Artifact
from inference.runtimes.base import DeviceChoice
from scoring.driver import ENDING_SECONDS, Block, Order, Turn, drive
from scoring.order import Guarded
from scoring.remote import RemoteItem
from scoring.rows import Row, Settings
from scoring.scorer import CUDA_BATCH
from scoring.sources import Item

_log = logging.getLogger(__name__)

BLOCK = 2 * CUDA_BATCH
"""Inputs that an actor takes at once, and that are computed again when it dies. Whole batches, as in a local run."""

KNOCK_SECONDS, JOIN_SECONDS = 10.0, 60.0
"""Time that a cluster's port has to answer, and the cluster to let the driver join."""


class ClusterEngine:
    """Scores on a Ray cluster, or on Ray processes of this machine where no address is given.

    Every node needs the driver's versions of Petalpaw and Ray, and must reach the inputs: remote addresses, or folders
    mounted alike. The model is sent to the nodes and verified there. The driver is a spawned process, so a script makes
    its engine under `if __name__ == "__main__":`.
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
        address = address or os.environ.get("RAY_ADDRESS")
        if address:
            _knock(address)
        settings = settings or Settings()
        self.columns: Sequence[str] = settings.columns
        self.batch_size: int
        self.fingerprint: Mapping[str, Any]
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C does: the driver is to end in order
        number, log = tempfile.mkstemp(prefix="petalpaw-ray-", suffix=".log")
        os.close(number)
        self._log = Path(log)
        self._log_is_named = self._joined = self._used_up = False
        # Not forked: threads of this process may hold locks.
        processes = multiprocessing.get_context("spawn")
        self._pipe, theirs = processes.Pipe()
        order = Order(artifact, settings, address, runtime, device)
        self._driver = processes.Process(target=drive, args=(theirs, log, order), daemon=True)
        try:
            self._driver.start()
            theirs.close()
            self._join(address)
            self.batch_size, self.fingerprint = self._heard()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the cluster, which ends its actors; one that was started for this run ends as well."""
        with _undisturbed():
            if self._driver.pid is not None:  # else it never began, as in a script without the guard
                self._driver.terminate()
                self._driver.join(ENDING_SECONDS)
                self._driver.kill()
                self._driver.join()
            self._pipe.close()
            if not self._log_is_named:
                self._log.unlink(missing_ok=True)

    def rows(self, items: Iterable[Item], stop: threading.Event | None = None) -> Generator[Row]:
        """One row per input, in order. Raises SourceGone or ClusterUnavailable.

        Once `stop` is set, no further block is waited for: the last inputs taken stay without rows. Inputs before an
        error of `items` itself get theirs. After rows that were closed early or ended by an error of the engine, the
        driver waits for an answer about them, and this raises RuntimeError.
        """
        if self._used_up:
            raise RuntimeError("earlier rows of this ClusterEngine did not come to their end; make another engine")
        self._used_up = True
        stop = stop or threading.Event()
        source = Guarded(items)
        blocks = _blocks(source)
        self._say(True)
        try:
            while (said := self._heard()) is not Turn.DONE:
                if said is Turn.WANTED:
                    self._say(None if stop.is_set() else next(blocks, None))
                else:
                    yield from _rows(said)
                    self._say(not stop.is_set())
            self._used_up = False
        except ClusterUnavailable:
            if not stop.is_set():  # it may have heard the very signal that set it
                raise
            self._log_is_named = False  # nobody is told
        if source.error is not None:
            raise source.error

    def _join(self, address: str | None) -> None:
        """Ray itself would try for minutes where something else answers. Raises as the driver does."""
        if address and not self._pipe.poll(JOIN_SECONDS):
            self._driver.kill()  # nothing of Ray's is there yet that it would have to end
            raise ClusterUnavailable(
                f"what answers at {address} let nobody join within {JOIN_SECONDS:.0f} s; check that it is the port of "
                "a Ray cluster's head, by default 6379, and that the cluster is well"
            )
        self._joined = self._heard() is Turn.JOINED

    def _say(self, what: Block | bool | None) -> None:
        with suppress(OSError):  # gone: what it said last comes next, or that it ended
            self._pipe.send(what)

    def _heard(self) -> Any:
        """What the driver says. Raises what it raised, and ClusterUnavailable where it ended unasked."""
        try:
            while isinstance(said := self._pipe.recv(), str):
                _log.warning(said)
        except (EOFError, OSError) as error:
            self._driver.join(ENDING_SECONDS)
            self._log_is_named = True
            ended, mended = "the process that drives Ray ended before it joined a cluster", "when that is mended"
            if self._joined:
                ended, mended = "the cluster ended, or Ray's processes on this machine did", "when it is back"
            raise ClusterUnavailable(
                f"{ended} (status {self._driver.exitcode}; {self._log} has Ray's words, if any); {mended}, or with "
                "--engine local, run the same command again to go on"
            ) from error
        if isinstance(said, PetalpawError):
            raise said
        return said


def _rows(outcomes: Iterable[bytes]) -> Iterator[Row]:
    """An actor's rows. Raises the SourceGone after them, if any."""
    for each in outcomes:
        outcome = pickle.loads(each)  # noqa: S301 – our own actor's
        if isinstance(outcome, SourceGone):
            raise outcome
        yield outcome


def _blocks(items: Iterable[Item]) -> Iterator[Block]:
    """Inputs, up to BLOCK at a time, parted where a local run's batches end."""
    block: list[Item] = []
    for item in items:
        block.append(item)
        if (item.id + 1) % BLOCK == 0:
            yield _block(block)
            block = []
    if block:
        yield _block(block)


def _block(items: list[Item]) -> Block:
    return Block([pickle.dumps(item) for item in items], any(isinstance(item, RemoteItem) for item in items))


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
