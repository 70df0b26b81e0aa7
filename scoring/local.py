"""The engine for one machine: threads that read ahead, threads that compute, and rows in the order of the inputs.

On a CPU parallel streams of batch 1 beat batches, and an answer then equals the service's bit for bit. A GPU needs
batches. They end at fixed ids, so that a picture meets the same neighbours in a run that was interrupted.
"""

import threading
from collections.abc import Generator, Iterable
from contextlib import closing

from inference.budget import Budget
from inference.errors import ParameterInvalid
from scoring.order import in_order
from scoring.rows import Row
from scoring.scorer import Computed, Prepared, Scorer
from scoring.sources import Item

_WINDOW = 256
"""Inputs under way at most, done ones included: neighbours of a slow picture go on, and memory stays flat."""


class LocalEngine:
    """Scores with one classifier on this machine.

    `streams` pictures are decoded (and on a CPU inferred) at once, by default as many as the CPU budget allows.
    """

    def __init__(self, scorer: Scorer, *, streams: int | None = None) -> None:
        """Raises ParameterInvalid for fewer than one stream."""
        self.scorer = scorer
        self.batch_size = scorer.batch_size
        self.fingerprint = scorer.fingerprint
        self.columns = scorer.settings.columns
        self.streams = Budget.plan().streams if streams is None else streams
        if self.streams < 1:
            raise ParameterInvalid(f"streams is {self.streams}, it must be 1 or more")

    def rows(self, items: Iterable[Item], stop: threading.Event | None = None) -> Generator[Row]:
        """One row per input, in order; no picture, good or bad, harms another. Raises SourceGone.

        Once `stop` is set, no further input is taken; those in hand still become rows.
        """
        stop = stop or threading.Event()
        if self.batch_size == 1:
            computed = in_order(self.scorer.computed, items, streams=self.streams, window=_WINDOW, stop=stop)
            return self._one_by_one(computed)
        window = max(_WINDOW, 4 * self.batch_size)
        return self._in_batches(
            in_order(
                self.scorer.prepared, items, streams=self.streams, window=window, stop=stop, multiple=self.batch_size
            )
        )

    def _one_by_one(self, computed: Generator[Computed]) -> Generator[Row]:
        """Rows are filled here and not between two inferences, where it takes several times as long."""
        with closing(computed):
            for each in computed:
                yield self.scorer.row(each)

    def _in_batches(self, prepared: Generator[Prepared]) -> Generator[Row]:
        """Infer in batches while the pool prepares what comes next."""
        held: list[Prepared] = []
        for each in prepared:
            held.append(each)
            if (each.row.id + 1) % self.batch_size == 0:
                yield from self.scorer.rows(held)
                held = []
        yield from self.scorer.rows(held)
