"""A scoring run: source → engine → sink, counted, committed in parts, interruptible, never a row lost."""

import hashlib
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from types import FrameType
from typing import Protocol

from inference.errors import (
    DataInvalid,
    ImageUnreachable,
    ImageUnreadable,
    OutputUnwritable,
    PackageMissing,
    SourceGone,
)
from scoring.journal import Part
from scoring.progress import Progress, SilentProgress
from scoring.remote import RemoteItem
from scoring.rows import Row
from scoring.sinks import Sink
from scoring.sources import FailedItem, Item, Source
from scoring.summary import Summary, Tally
from scoring.witnesses import Witnesses, trust

PART_ROWS = 1000
PART_SECONDS = 5.0
"""A part is committed after so many rows, or after this time: what kill -9 can cost."""


class Engine(Protocol):
    """What turns inputs into rows: one per input, in order."""

    @property
    def batch_size(self) -> int:
        """Rows may be committed only where this divides their number: a run that goes on begins with a whole batch."""

    @property
    def fingerprint(self) -> Mapping[str, object]:
        """Everything that a row depends on besides its input."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns of its rows."""

    def rows(self, items: Iterator[Item], stop: threading.Event) -> Generator[Row]:
        """A row for every item taken. Once `stop` is set no more are taken, and the last of them may stay without.

        Closed early, it ends at once.
        """


def score(source: Source, engine: Engine, sink: Sink, progress: Progress | None = None) -> Summary:
    """Score every input of `source` into `sink`, which is committed when all of them have their row.

    Inputs that an earlier run of the same source, engine and sink committed are not scored again. On Ctrl-C (or
    SIGTERM) the inputs in hand are finished and committed as a part; the summary says so and where they are. A second
    Ctrl-C ends at once. Raises DataInvalid when there is nothing to score or it is not what it was, SourceGone when it
    went away and OutputUnwritable when the sink takes no more; the parts so far stay.
    """
    began = time.monotonic()
    total = source.count()
    with sink, interruptible() as stop, progress or SilentProgress() as shown:
        parts = sink.begin({"source": source.description, **engine.fingerprint}, engine.columns)
        inputs, tally = _Inputs(source), Tally()
        for part in parts:
            inputs.skip(part)
            tally.add_part(part)
        resumed = tally.rows
        shown.start(total, resumed)
        commits = _Commits(sink, inputs, engine.batch_size, reached=bool(parts))
        with commits, closing(engine.rows(inputs, stop)) as rows:
            for row in rows:
                if row.id != tally.rows:
                    raise RuntimeError(f"row {row.id} came where row {tally.rows} belongs; please report it")
                tally.add(row)
                commits.write(row)
                shown.update(tally.rows, tally.failed)
            complete = inputs.exhausted and tally.rows == inputs.taken
            if complete:
                commits.refuse_silence()
            if not (complete or stop.is_set()):
                raise RuntimeError(f"{inputs.taken} inputs gave {tally.rows} rows and the run ended; please report it")
        if not tally.rows and complete:
            raise DataInvalid(f"there is nothing to score: {source.description} has no input; check what it names")
        # A signal that arrived with the last row interrupted nothing.
        if complete:
            sink.commit()
    lost = commits.silent and sink.resumable
    return tally.summary(
        seconds=time.monotonic() - began,
        interrupted=not complete,
        place="nowhere, for no server gave an answer" if lost else sink.place,
        resumed=resumed,
        resumable=sink.resumable and not lost,
    )


class _Inputs:
    """The items of a source, how many were taken, whether these were all, and what is kept of those that have rows.

    That is their digest, and the `witnesses` of a Part.
    """

    def __init__(self, source: Source) -> None:
        self._items = iter(source)
        self._pending: deque[tuple[bytes, str | None, bool]] = deque()
        self._digest = hashlib.sha256()
        self._witnesses: list[str] = []
        self._known = Witnesses()
        self.taken = 0
        self.exhausted = False

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            item = next(self._items)
        except StopIteration:
            self.exhausted = True
            raise
        except OSError as error:
            raise SourceGone(
                f"the source cannot be read any further ({error}); bring it back, then run the same command again to "
                "go on"
            ) from error
        self.taken += 1
        # Taken before the picture is read: one that changes meanwhile is noticed.
        address = item.address if isinstance(item, RemoteItem) else None
        self._pending.append((_stamp(item), address, not isinstance(item, FailedItem)))
        return item

    def done(self, row: Row) -> bool:
        """The next of the items has its row. Whether that says that something could be reached."""
        stamp, address, was_asked = self._pending.popleft()
        self._digest.update(stamp)
        gave = row.error_code not in (ImageUnreadable.code, ImageUnreachable.code)
        if address is not None and gave and self._known.trust(address):
            self._witnesses.append(address)
        return was_asked and row.error_code not in (ImageUnreachable.code, DataInvalid.code, PackageMissing.code)

    def answered(self) -> tuple[str, list[str]]:
        """Digest and witnesses of the items that got their rows since the last call."""
        found = self._digest.hexdigest(), self._witnesses
        self._digest, self._witnesses = hashlib.sha256(), []
        return found

    def skip(self, part: Part) -> None:
        """Pass over the inputs of a part. Raises DataInvalid when they are not those that were scored."""
        for item in islice(self._items, part.rows):
            self.taken += 1
            self._digest.update(_stamp(item))
        if self.answered()[0] != part.inputs:
            raise DataInvalid(
                f"among the first {self.taken:,} inputs, which an earlier run scored, some are not what they were; add "
                "--restart to score all of them anew, or choose another output"
            )
        for address in part.witnesses:
            trust(address)
            self._known.trust(address)


def _stamp(item: Item) -> bytes:
    """Ended by a zero byte, so that two stamps never read as two others."""
    return item.stamp().encode("utf-8", "surrogatepass") + b"\0"


class _Commits:
    """Writes rows and commits a part whenever one is due; left by an error, it commits what is in hand."""

    def __init__(self, sink: Sink, inputs: _Inputs, batch_size: int, *, reached: bool) -> None:
        self._sink = sink
        self._inputs = inputs
        self._batch_size = batch_size
        self._rows = 0
        self._reached = reached
        self._silence: str | None = None
        self._last = time.monotonic()

    def write(self, row: Row) -> None:
        """Raises OutputUnwritable, and SourceGone as `refuse_silence` does."""
        self._sink.write(row)
        self._reached |= self._inputs.done(row)
        self._rows += 1
        if row.error_code == ImageUnreachable.code:
            self._silence = row.error_detail
        if self._rows >= PART_ROWS:
            self.refuse_silence()
        due = self._rows >= PART_ROWS or time.monotonic() - self._last >= PART_SECONDS
        self._at_whole_batch = (row.id + 1) % self._batch_size == 0
        if due and self._at_whole_batch:
            self._commit()

    @property
    def silent(self) -> bool:
        """Whether servers were asked and nothing was reached: with the network away, rows would say so for good."""
        return self._silence is not None and not self._reached

    def refuse_silence(self) -> None:
        """Raises SourceGone where all is silent."""
        if self.silent:
            raise SourceGone(
                f"no server of the first {self._rows:,} inputs gave an answer; run the same command again when they "
                f"are there, or name others. The last: {self._silence}"
            )

    def _commit(self) -> None:
        if self.silent:
            return
        self._sink.commit_part(*self._inputs.answered())
        self._rows = 0
        self._last = time.monotonic()

    def __enter__(self) -> None:
        self._at_whole_batch = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        # All rows are there, or an error of the source or engine came between whole batches. A sink that failed takes
        # no more, and after a second Ctrl-C nobody wants to wait.
        whole = error is None or (isinstance(error, Exception) and self._at_whole_batch)
        if whole and not isinstance(error, OutputUnwritable):
            self._commit()


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one acts as it did before.

    Python delivers signals to the main thread alone; elsewhere the event is only the caller's.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        for number, handler in before.items():
            # Who was started with it ignored, as a shell does in the background, can be ended all the same.
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default if handler is signal.SIG_IGN else handler)

    try:
        for number in before:
            signal.signal(number, on_signal)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
