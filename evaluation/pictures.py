"""Pictures of figures, and how all pictures look. Drawn without a display and without matplotlib's global state."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure

from evaluation.figures import ECE_BINS, Indices, Reliability

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


def draw_confusion(path: Path, counts: Indices, labels: Sequence[str], split: str) -> None:
    """Counts by true (row) and predicted (column) class; colour is the share of the row."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        names = names_of(labels)
        shown = range(0, len(names), -(-len(names) // 100))
        axes.set_xticks(shown, names[:: shown.step], rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(shown, names[:: shown.step])
        axes.set(title=f"Confusion on {split}", xlabel="predicted", ylabel="true")
        axes.grid(visible=False)
        if len(names) <= 30:
            for row, column in np.ndindex(counts.shape):
                if counts[row, column]:
                    colour = "white" if shares[row, column] > 0.55 else "black"
                    axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)

    side = 3 + 0.55 * min(len(labels), 40)
    save(path, (side + 0.6, side), draw)


def draw_calibration(path: Path, panels: Mapping[str, tuple[Reliability, float]]) -> None:
    """Accuracy by confidence, a panel per title with its error; on the diagonal, probabilities are right."""

    def draw(figure: Figure) -> None:
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, (parts, error)) in zip(row, panels.items(), strict=True):
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
        figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        row[0].set_ylabel("accuracy (number of photos above the bars)")

    save(path, (5.5 * len(panels), 4.6), draw)


def names_of(labels: Sequence[str], most: int = 20) -> list[str]:
    """Labels as a picture can show them: those that it cannot, or not tell apart, carry their class index."""
    names = [shortened(label, most) for label in labels]
    return [
        f"{index}: {name}" if readable(label) != label or names.count(name) > 1 else name
        for index, (label, name) in enumerate(zip(labels, names, strict=True))
    ]


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


def save(path: Path, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    """Draw a figure of `size` inches and write it as PNG."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        # Without the software's name and version, equal pictures are equal files.
        figure.savefig(path, dpi=110, metadata={"Software": None})
