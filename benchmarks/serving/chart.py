"""The medians as a picture: rates in a closed loop, tails in an open one, and the share of the limit by picture."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import LIMIT, OURS, Record, median

_COLOURS = {"1 clients": "#b7c9e2", "16 clients": "#4878a8", "64 clients": "#1d3a5f"}
_SHARES = {"open 50%": "#f0d9b5", "open 80%": "#d98c4a", "open 95%": "#8c4a1f"}
_KINDS = {"thumbnails": "#cfe3c8", "photos": "#74a867", "phone": "#35602c"}


def draw(records: list[Record], path: Path) -> None:
    """Three panels of bars, a group per contender, the fastest at 16 clients first."""
    good = [record for record in records if "rate" in record]
    photos = [record for record in good if record["kind"] == "photos"]
    names = list(dict.fromkeys(record["contender"] for record in good if record["contender"] != LIMIT))
    names.sort(key=lambda name: -(median(photos, "16 clients", name, "rate") or 0))
    figure = Figure(figsize=(9, 11), layout="constrained")
    rates, tails, kinds = figure.subplots(3, 1)
    _bars(rates, names, _COLOURS, lambda name, load: median(photos, load, name, "rate"))
    limit = median(photos, "16 clients", LIMIT, "rate")
    if limit:
        rates.axhline(limit, color="black", linewidth=1, linestyle="--", label=LIMIT)
    rates.set_title("500 × 415 photos: images per second, closed loop")
    _bars(tails, names, _SHARES, lambda name, load: median(photos, load, name, "p99"))
    tails.set_title("500 × 415 photos: p99 in ms at a share of each one's own capacity, Poisson arrivals")

    def share(name: str, kind: str) -> float | None:
        these = [record for record in good if record["kind"] == kind]
        rate, most = (median(these, "16 clients", each, "rate") for each in (name, LIMIT))
        return rate / most if rate and most else None

    _bars(kinds, names, _KINDS, share)
    kinds.set_title("share of the in-process limit at 16 clients, by kind of picture")
    for axes in (rates, tails, kinds):
        axes.margins(y=0.2)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8, ncols=4)
        axes.spines[["top", "right"]].set_visible(False)
    with mpl.rc_context({"svg.hashsalt": "serving"}):
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _bars(axes: Axes, names: list[str], colours: dict[str, str], value: Callable[[str, str], float | None]) -> None:
    width = 0.8 / len(colours)
    for offset, (key, colour) in enumerate(colours.items()):
        found = [(place, value(name, key)) for place, name in enumerate(names)]
        shown = [(place + (offset - 1) * width, height) for place, height in found if height]
        if shown:
            bars = axes.bar(*zip(*shown, strict=True), width=width, color=colour, label=key)
            axes.bar_label(bars, fmt="{:.3g}", fontsize=6)
    axes.set_xticks(range(len(names)), ["Petalpaw" if name == OURS else name for name in names])
