"""The pictures of a run folder. Drawn without a display and without matplotlib's global state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from evaluation.figures import Probabilities
from evaluation.pictures import BLUE, GREY, ORANGE, RED, readable, save, shortened
from training.gradcam import Heat
from training.history import Epoch
from training.pixels import Pixels
from training.residuals import Residual
from training.steps import Step

_MANY_TIMES = 30  # a loss that falls this much is a flat line on a plain scale


def draw_curves(path: Path, epochs: Sequence[Epoch]) -> None:
    """Loss and accuracy per epoch, training and validation; stages are set apart, the kept epoch is marked."""

    def draw(figure: Figure) -> None:
        """A panel for the loss, one for the accuracy."""
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
            _mark_borders(axes, [(epoch.epoch, epoch.stage) for epoch in epochs])

    save(path, (11, 4.2), draw)


def draw_iterations(path: Path, steps: Sequence[Step]) -> None:
    """Loss per step, as it was and smoothed, and below it the learning rates; stages are set apart."""

    def draw(figure: Figure) -> None:
        """The loss above, the rates below."""
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        numbers, losses = [step.step for step in steps], [step.loss for step in steps]
        means = smoothed(losses)
        upper.plot(numbers, losses, color=ORANGE, linewidth=0.8, alpha=0.45, label="each step")
        upper.plot(numbers, means, color=BLUE, linewidth=1.8, label="smoothed")
        if max(means) > _MANY_TIMES * min(means) > 0:
            _scale_by_logarithm(upper)
            upper.set_ylim(min(means) / 3, max(*losses, *means) * 1.5)  # single steps may come close to nothing
        upper.set(title="Training loss per step", ylabel="loss")
        upper.legend()
        for name, colour in (("head", BLUE), ("backbone", ORANGE)):
            rates = [getattr(step, f"{name}_rate") for step in steps]
            if any(rate is not None for rate in rates):
                lower.plot(numbers, [np.nan if rate is None else rate for rate in rates], color=colour, label=name)
        lower.set(xlabel="step", ylabel="learning rate")
        lower.legend()
        for axes in (upper, lower):
            _mark_borders(axes, [(step.step, step.stage) for step in steps], named=axes is upper)

    save(path, (11, 5.6), draw)


def smoothed(values: Sequence[float]) -> list[float]:
    """The exponential moving mean over about a fortieth of the values, corrected for its start (Kingma & Ba 2015)."""
    keep = 1 - 1 / max(len(values) / 40, 1)
    mean, means = 0.0, []
    for count, value in enumerate(values, start=1):
        mean = keep * mean + (1 - keep) * value
        means.append(mean / (1 - keep**count))
    return means


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


def draw_mistakes(path: Path, crops: Sequence[Pixels], mistakes: Sequence[Mistake], title: str) -> None:
    """Wrong answers with what is said to be true, in the order given."""
    captions = [
        (
            f"{shortened(mistake.truth)} → {shortened(mistake.answer)} {mistake.probability:.0%}\n"
            f"{shortened(mistake.path[::-1], 30)[::-1]}",
            RED,
        )
        for mistake in mistakes
    ]
    _tiles(path, title, crops, captions)


@dataclass(frozen=True)
class Look:
    """Where the network looked for an answer: crop, heat float32 (side, side) in 0…1, and what it said."""

    crop: Pixels
    heat: Heat
    truth: str | None
    answer: str
    probability: float

    @property
    def caption(self) -> tuple[str, str]:
        """Text and colour: red where the answer is wrong."""
        wrong = self.truth is not None and self.truth != self.answer
        said = f"{shortened(self.answer, 20)} {self.probability:.0%}"
        return (f"{shortened(self.truth or '', 20)} → {said}", RED) if wrong else (said, "black")


def draw_looks(path: Path, looks: Sequence[Look], title: str) -> None:
    """Pairs of a crop and the same crop under its heat."""
    tiles = [np.hstack([look.crop, overlaid(look.crop, look.heat)]) for look in looks]
    _tiles(path, title, tiles, [look.caption for look in looks], columns=3)


def overlaid(crop: Pixels, heat: Heat) -> Pixels:
    """The crop, dimmed to grey where nothing speaks for the answer and coloured where much does."""
    colours = mpl.colormaps["inferno"](heat)[..., :3] * 255
    grey = crop.mean(axis=2, keepdims=True)
    pixels: Pixels = (0.45 * grey + 0.55 * colours * (0.4 + 0.6 * crop / 255)).clip(0, 255).astype(np.uint8)
    return pixels


def draw_residuals(path: Path, report: Sequence[Residual], what: str) -> None:
    """‖x‖ and ‖F(x)‖ per addition, and below them how much F(x) is of x."""

    def draw(figure: Figure) -> None:
        """Both summands above, their ratio below."""
        upper, lower = figure.subplots(2, 1, sharex=True)
        places = np.arange(len(report))
        upper.plot(places, [each.shortcut for each in report], "o-", color=GREY, label="‖x‖, the shortcut")
        upper.plot(places, [each.branch for each in report], "o-", color=BLUE, label="‖F(x)‖, what the block adds")
        figure.suptitle(
            f"What each residual block adds, on {shortened(what, 60)}", fontweight="bold", x=0.01, ha="left"
        )
        upper.set(ylabel="norm")
        _scale_by_logarithm(upper)
        upper.legend()
        lower.bar(places, [each.ratio for each in report], color=BLUE)
        lower.axhline(1, color=GREY, linestyle="--")
        lower.set(ylabel="‖F(x)‖ / ‖x‖")
        every = max(1, len(report) // 40)
        names = [shortened(each.block, 32) for each in report]
        lower.set_xticks(places[::every], names[::every], rotation=60, ha="right", rotation_mode="anchor", fontsize=8)

    save(path, (max(9.0, min(2 + 0.3 * len(report), 16)), 6.2), draw)


def draw_rates(
    path: Path,
    stage: str,
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    marks: Mapping[str, float | None],
) -> None:
    """A range test: loss over the logarithm of the head's learning rate, with the rates that it suggests."""

    def draw(figure: Figure) -> None:
        """One panel, with a line for every suggestion."""
        axes = figure.add_subplot()
        axes.plot(rates, losses, color=GREY, linewidth=1, label="loss of each step")
        axes.plot(rates, smoothed, color=BLUE, linewidth=2, label="smoothed")
        for (what, rate), colour in zip(marks.items(), (ORANGE, RED), strict=True):
            if rate is not None:
                axes.axvline(rate, color=colour, linestyle="--", label=f"{what}: {rate:.2g}")
        low, high = min(smoothed), max(smoothed[0], np.median(smoothed))
        axes.set(xscale="log", ylim=(max(0.0, low - 0.3 * (high - low)), high + 0.7 * (high - low) + 1e-6))
        axes.set(title=f"Learning rate range test: {shortened(stage, 30)}", xlabel="learning rate of the head")
        axes.set_ylabel("training loss (nats)")
        axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axes.legend()

    save(path, (8, 4.6), draw)


def worst_mistakes(predicted: Probabilities, truth: Any, most: int) -> list[int]:
    """Positions of wrong answers, the surest first."""
    wrong = np.flatnonzero(predicted.argmax(axis=1) != truth)
    return [int(index) for index in sorted(wrong, key=lambda index: -predicted[index].max())[:most]]


def _scale_by_logarithm(axes: Axes) -> None:
    """Heights by their logarithm, with plain numbers at powers of ten, and between them where there are few."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _mark_borders(axes: Axes, stages: Sequence[tuple[int, str]], named: bool = True) -> None:
    """A line between stages, given each point's place and stage; their names along the lower edge."""
    starts: dict[str, int] = {}
    for place, stage in stages:
        starts.setdefault(stage, place)
    for start in list(starts.values())[1:]:
        axes.axvline(start - 0.5, color=GREY, linestyle=":")
    if named and len(starts) > 1:
        edge = axes.get_xlim()[0]
        for stage, start in starts.items():
            axes.annotate(
                shortened(stage),
                (max(start - 0.5, edge), 0.0),
                xycoords=("data", "axes fraction"),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=8,
                color="#4a5568",
            )


def _tiles(
    path: Path, title: str, crops: Sequence[Pixels], captions: Sequence[tuple[str, str]], columns: int = 6
) -> None:
    columns = min(columns, max(len(crops), 1))
    rows = max(1, -(-len(crops) // columns))
    shape = crops[0].shape[1] / crops[0].shape[0] if crops else 1.0

    def draw(figure: Figure) -> None:
        """A panel for every photo, row by row."""
        figure.suptitle(title, fontweight="bold", x=0.01, ha="left")
        if not crops:
            figure.text(0.5, 0.4, "none", ha="center")
        for place, (crop, (caption, colour)) in enumerate(zip(crops, captions, strict=True), start=1):
            axes = figure.add_subplot(rows, columns, place)
            axes.imshow(crop)
            axes.set_title(caption, fontsize=8, color=colour, fontweight="normal", loc="center")
            axes.set_axis_off()

    save(path, (max(2.1 * shape * columns, 6.3), 2.45 * rows + 0.4), draw)
