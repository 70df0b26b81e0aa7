"""Which cells are measured, and how: in turn with the reference, round by round, a process for each of the two."""

import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from entrants import REFERENCE, SHAPES, Shape
from worker import Cell, Kind, Worker

BATCHES: dict[Kind, tuple[int, ...]] = {"model": (1, 2, 4, 8, 16, 32, 64), "pipeline": (1, 4, 16, 64)}
LONGEST = 1.0
"""Seconds: a call that would take longer is left out, so that all of it fits into minutes."""

Record = dict[str, Any]


def measured(
    entrant: str, networks: Iterable[str], folder: Path, rounds: int, seconds: float, longest: float
) -> Iterator[Record]:
    """A record for each cell: images per second round by round, and the reference's just before."""
    with Worker(REFERENCE, folder) as reference, Worker(entrant, folder) as worker:
        for network in networks:
            base = {kind: Cell(network, kind, Shape(1, 1), 1) for kind in BATCHES}
            for cell in base.values():
                reference.rate(cell, seconds)
            cells = list(_fitting(worker, network, longest))
            rates: dict[Cell, list[tuple[float, float]]] = {cell: [] for cell in cells}
            for _ in range(rounds):
                for cell in cells:
                    rates[cell].append((reference.rate(base[cell.kind], seconds), worker.rate(cell, seconds)))
            for cell, found in rates.items():
                yield _record(entrant, cell, found)


def agreement(entrant: str, network: str, folder: Path, weights: bool) -> Record:
    """How far the answers are from eager PyTorch's; labels count only where the weights mean something."""
    expected = np.load(folder / network / "expected.npy")
    with Worker(entrant, folder) as worker:
        found = worker.logits(network, len(expected))
    difference = np.abs(found - expected)
    span = float(expected.max() - expected.min())
    record = {"entrant": entrant, "network": network, "photos": len(expected), "span": span}
    record |= {"largest": float(difference.max()), "mean": float(difference.mean())}
    return record | ({"same": float((found.argmax(1) == expected.argmax(1)).mean())} if weights else {})


def _fitting(worker: Worker, network: str, longest: float) -> Iterator[Cell]:
    """The cells whose calls are short enough, each called once to warm up."""
    for kind, batches in BATCHES.items():
        for shape in SHAPES:
            per_image = 0.0
            for batch in batches:
                if per_image * batch > longest:
                    break
                cell = Cell(network, kind, shape, batch)
                per_image = shape.streams / worker.rate(cell, 0)
                yield cell


def with_ratios(records: list[Record]) -> list[Record]:
    """Each with `ratio`, to the median reference of its run, network, kind and round; the median over the rounds."""
    references: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for record in records:
        for number, reference in enumerate(record["references"]):
            references[*_run(record), number].append(reference)
    bases = {key: statistics.median(found) for key, found in references.items()}
    return [
        record
        | {
            "ratio": statistics.median(
                rate / bases[*_run(record), number] for number, rate in enumerate(record["rates"])
            )
        }
        for record in records
    ]


def _run(record: Record) -> tuple[object, ...]:
    return record["entrant"], record["network"], record["kind"]


def _record(entrant: str, cell: Cell, found: list[tuple[float, float]]) -> Record:
    references, rates = zip(*found, strict=True)
    print(f"{entrant}: {cell}: {statistics.median(rates):.1f} images/s", file=sys.stderr, flush=True)
    return {
        "entrant": entrant,
        "network": cell.network,
        "kind": cell.kind,
        "streams": cell.shape.streams,
        "threads": cell.shape.threads,
        "batch": cell.batch,
        "rate": round(statistics.median(rates), 2),
        "rates": [round(rate, 2) for rate in rates],
        "references": [round(rate, 2) for rate in references],
    }
