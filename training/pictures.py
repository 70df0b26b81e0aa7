"""The pictures of a run folder. Drawn without a display and without matplotlib's global state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.evaluate import ECE_BINS, Probabilities, Reliability
from training.history import Epoch
from training.pixels import Pixels

BLUE, ORANGE, RED, GREY = "#2b6cb0", "#dd6b20", "#c53030", "#a0aec0"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e8f0",
    "axes.edgecolor": "#718096",
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "text.parse_math": False,
}


def draw_curves(path: Path, epochs: Sequence[Epoch]) -> None:
    """Loss and accuracy per epoch, training and validation; stages are set apart, the kept epoch is marked."""

    def draw(figure: Figure) -> None:
        numbers = [epoch.epoch for epoch in epochs]
        kept = next((epoch for epoch in reversed(epochs) if epoch.kept), None)
        for place, what in enumerate(("loss", "accuracy"), start=1):
            axes = figure.add_subplot(1, 2, place)
            for split, colour in (("train", ORANGE), ("validation", BLUE)):
                values = [getattr(epoch, f"{split}_{what}") for epoch in epochs]
                axes.plot(numbers, values, color=colour, marker="o", markersize=4, label=split)
            if kept:
                value = getattr(kept, f"validation_{what}")
                axes.plot(kept.epoch, value, "o", markersize=11, markerfacecolor="none", color=BLUE, label="kept")
            axes.set(title=what.capitalize(), xlabel="epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend()
            _mark_stages(axes, epochs)

    _save(path, (11, 4.2), draw)


def draw_batch(path: Path, crops: Sequence[Pixels], labels: Sequence[str]) -> None:
    """Training crops with their labels, as the network gets them before it normalises."""
    _tiles(path, "A training batch, augmented", crops, [(readable(label), "black") for label in labels])


@dataclass(frozen=True)
class Mistake:
    """A wrong answer, its probability, and the photo's path relative to the data root."""

    truth: str
    answer: str
    probability: float
    path: str


def draw_mistakes(path: Path, crops: Sequence[Pixels], mistakes: Sequence[Mistake], split: str) -> None:
    """Wrong answers with what is true, the surest first."""
    captions = [
        (
            f"{shortened(mistake.truth)} → {shortened(mistake.answer)} {mistake.probability:.0%}\n"
            f"{shortened(mistake.path[::-1], 30)[::-1]}",
            RED,
        )
        for mistake in mistakes
    ]
    _tiles(path, f"The surest mistakes on {split}: true label → answer, its probability, file", crops, captions)


def draw_confusion(path: Path, counts: Any, labels: Sequence[str], split: str) -> None:
    """Counts by true (row) and predicted (column) class; colour is the share of the row."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        names = [shortened(label, 20) for label in labels]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.set(title=f"Confusion on {split}", xlabel="predicted", ylabel="true")
        axes.grid(visible=False)
        if len(names) <= 30:
            for row, column in np.ndindex(counts.shape):
                if counts[row, column]:
                    colour = "white" if shares[row, column] > 0.55 else "black"
                    axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)

    side = 3 + 0.55 * min(len(labels), 40)
    _save(path, (side + 0.6, side), draw)


def draw_calibration(
    path: Path, before: Reliability, after: Reliability, errors: tuple[float, float], split: str
) -> None:
    """Accuracy by confidence before and after temperature scaling; on the diagonal, probabilities are right."""

    def draw(figure: Figure) -> None:
        upper = figure.add_subplot(1, 2, 1)
        for place, (title, parts, error) in enumerate(
            ((f"On {split}, before scaling", before, errors[0]), ("after scaling", after, errors[1])), start=1
        ):
            axes = upper if place == 1 else figure.add_subplot(1, 2, 2, sharey=upper)
            filled = parts.counts > 0
            centres = (np.arange(ECE_BINS) + 0.5) / ECE_BINS
            axes.bar(centres[filled], parts.accuracy[filled], width=0.9 / ECE_BINS, color=BLUE, label="accuracy")
            axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfectly calibrated")
            axes.plot(parts.confidence[filled], parts.accuracy[filled], "o", color=ORANGE, label="mean confidence")
            for centre, accuracy, count in zip(
                centres[filled], parts.accuracy[filled], parts.counts[filled], strict=True
            ):
                axes.text(centre, min(accuracy + 0.02, 1.01), str(count), ha="center", fontsize=7, color="#4a5568")
            axes.set(title=f"{title}: error {error:.4f}", xlabel="confidence", xlim=(0, 1), ylim=(0, 1.08))
        figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        upper.set_ylabel("accuracy (number of photos above the bars)")

    _save(path, (11, 4.6), draw)


def worst_mistakes(predicted: Probabilities, truth: Any, most: int) -> list[int]:
    """Positions of wrong answers, the surest first."""
    wrong = np.flatnonzero(predicted.argmax(axis=1) != truth)
    return [int(index) for index in sorted(wrong, key=lambda index: -predicted[index].max())[:most]]


def readable(text: str) -> str:
    """The text with a box for every character that the font cannot draw."""
    return "".join(character if _drawable(character) else "□" for character in text)


def shortened(text: str, most: int = 14) -> str:
    """Readable, and at most `most` characters long."""
    text = readable(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


@lru_cache(maxsize=4096)
def _drawable(character: str) -> bool:
    return character.isprintable() and _font().get_char_index(ord(character)) != 0


@lru_cache(maxsize=1)
def _font() -> Any:
    return font_manager.get_font(font_manager.findfont("DejaVu Sans"))


def _mark_stages(axes: Axes, epochs: Sequence[Epoch]) -> None:
    for left, right in pairwise(epochs):
        if left.stage != right.stage:
            axes.axvline(left.epoch + 0.5, color=GREY, linestyle=":")
    starts = {epoch.stage: epoch.epoch for epoch in reversed(epochs)}
    if len(starts) > 1:
        edge = axes.get_xlim()[0]
        for stage, start in starts.items():
            place = (max(start - 0.5, edge), 0.0)
            axes.annotate(
                shortened(stage),
                place,
                xycoords=("data", "axes fraction"),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=8,
                color="#4a5568",
            )


def _tiles(path: Path, title: str, crops: Sequence[Pixels], captions: Sequence[tuple[str, str]]) -> None:
    columns = min(6, max(len(crops), 1))
    rows = max(1, -(-len(crops) // columns))

    def draw(figure: Figure) -> None:
        figure.suptitle(title, fontweight="bold", x=0.01, ha="left")
        if not crops:
            figure.text(0.5, 0.4, "none", ha="center")
        for place, (crop, (caption, colour)) in enumerate(zip(crops, captions, strict=True), start=1):
            axes = figure.add_subplot(rows, columns, place)
            axes.imshow(crop)
            axes.set_title(caption, fontsize=8, color=colour, fontweight="normal", loc="center")
            axes.set_axis_off()

    _save(path, (2.1 * max(columns, 3), 2.45 * rows + 0.4), draw)


def _save(path: Path, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        # Without the software's name and version, equal pictures are equal files.
        figure.savefig(path, dpi=110, metadata={"Software": None})
