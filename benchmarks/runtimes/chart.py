"""The records as a picture: ratio to the reference by batch size, on all cores by streams."""

from pathlib import Path

from matplotlib.figure import Figure
from trial import BATCHES, Record

from evaluation.pictures import save

_TITLES = {"model": "model alone", "pipeline": "with decoding"}
_SHAPE = (2, 1)
"""Streams and threads."""


def draw(path: Path, records: list[Record]) -> None:
    """A panel for each network and kind, a line for each entrant."""
    shown = [each for each in records if (each["streams"], each["threads"]) == _SHAPE]
    networks, entrants = (list(dict.fromkeys(each[name] for each in shown)) for name in ("network", "entrant"))

    def fill(figure: Figure) -> None:
        panels = figure.subplots(len(_TITLES), len(networks), squeeze=False, sharex=True)
        for row, (kind, title) in zip(panels, _TITLES.items(), strict=True):
            for axes, network in zip(row, networks, strict=True):
                for number, entrant in enumerate(entrants):
                    line = [
                        each
                        for each in shown
                        if (each["network"], each["kind"], each["entrant"]) == (network, kind, entrant)
                    ]
                    points = sorted((each["batch"], each["ratio"]) for each in line)
                    axes.plot(*zip(*points, strict=True), f"C{number}", marker=".", label=entrant)
                axes.set_xscale("log", base=2)
                axes.set_xticks(BATCHES["model"], map(str, BATCHES["model"]))
                axes.set(title=f"{network}, {title}", ylim=(0, None))
        for axes in panels[-1]:
            axes.set_xlabel("batch")
        for axes in panels[:, 0]:
            axes.set_ylabel("× ONNX Runtime fp32, batch 1, 1 thread")
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

    save(path, (4 * len(networks), 7.5), fill)
