"""The picture of a comparison: accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from fer_pipeline.comparison import Comparison, Cost, Entry
from fer_pipeline.learning.figures import BLUE, GREEN, ORANGE, VERMILION, save, title
from fer_pipeline.report import percent

# The palette of `figures` to its end, but for its yellow, too pale on white; and a grey.
_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, "#CC79A7", "#56B4E9", "#000000", "#7F7F7F")
_MARKERS = "osD^vPX*"
# A log axis goes so much further than its points, and over a decade at least.
_MARGIN = 1.6
# Costs whose logarithms differ by less than this are drawn side by side, so far from each other.
_ALIKE, _STEP = 0.1, 9.0

_PANELS: tuple[tuple[str, Callable[[Cost], float | None]], ...] = (
    ("multiply-adds per image", lambda cost: cost.multiply_adds),
    ("parameters", lambda cost: cost.parameters),
    ("images a second, on this machine", lambda cost: cost.images_per_second),
)


def accuracy_cost(found: Comparison, about: str, path: Path) -> None:
    """Draws accuracy, with its 95 % interval, against three costs on log axes.

    A model whose multiply-adds are not known, or 0, is missing in that panel. Models of nearly the
    same cost stand side by side there, and the title says so.

    Args:
        found: The comparison.
        about: What was compared on what.
        path: The PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    rows = -(-len(found.entries) // 2)
    figure = Figure(figsize=(12, 4.6 + 0.25 * rows), layout="constrained")
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    moved = False
    for axes, (label, cost) in zip(panels, _PANELS, strict=True):
        known = [(entry, cost(entry.cost)) for entry in found.entries]
        _costs(axes, label, [value for _, value in known if value])
        aside = _aside([value for _, value in known])
        moved = moved or any(aside)
        for place, (entry, value) in enumerate(known):
            if value:
                _point(axes, entry, value, place, aside[place])
    panels[0].set_ylabel("accuracy (%), with its 95 % interval")
    panels[0].set_ylim(_accuracies(found))
    # The first panel may miss a model, the second never does.
    handles = panels[1].get_legend_handles_labels()[0]
    legend = figure.legend(
        handles,
        [_label(entry) for entry in found.entries],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    for text in legend.get_texts():
        # A folder's name may hold a "$", which is no formula.
        text.set_parse_math(False)
    beside = ["points whose costs differ by a tenth or less stand side by side"] if moved else []
    title(figure, about, ", ".join([_conditions(found), *beside]))
    save(figure, path)


def _costs(axes: Axes, label: str, values: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(label)
    if values:
        least, most = min(values), max(values)
        margin = max(_MARGIN, math.sqrt(10 * least / most))
        low, high = least / margin, most * margin
        axes.set_xlim(low, high)
        # As many ticks as have room: over few decades their first numbers would be hardly one.
        steps = (1, 2, 5) if high < 40 * low else (1, 3) if high < 4000 * low else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


def _accuracies(found: Comparison) -> tuple[float, float]:
    """The ends of the axis, in per cent: all intervals, and some room around."""
    # What is moved aside does not scale the axis by itself.
    ends = [entry.result.intervals.accuracy for entry in found.entries]
    low, high = min(end.low for end in ends), max(end.high for end in ends)
    room = max(0.01, 0.08 * (high - low))
    return 100 * (low - room), 100 * (high + room)


def _aside(costs: Sequence[float | None]) -> list[float]:
    """How far each point stands beside its cost, in points of 1/72 inch.

    Points of nearly the same cost, of one network that was trained twice perhaps, would hide each
    other.
    """
    logarithms = {place: math.log(cost) for place, cost in enumerate(costs) if cost}
    groups: list[list[int]] = []
    for place in sorted(logarithms, key=lambda place: (logarithms[place], place)):
        if groups and logarithms[place] - logarithms[groups[-1][-1]] < _ALIKE:
            groups[-1].append(place)
        else:
            groups.append([place])
    aside = [0.0] * len(costs)
    for places in groups:
        for turn, place in enumerate(places):
            aside[place] = _STEP * (turn - (len(places) - 1) / 2)
    return aside


def _point(axes: Axes, entry: Entry, cost: float, place: int, aside: float) -> None:
    moved = ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    accuracy, ends = entry.result.accuracy, entry.result.intervals.accuracy
    axes.errorbar(
        cost,
        100 * accuracy,
        # At the ends of 0..1 arithmetic may leave a hair less than nothing.
        yerr=[[100 * max(0.0, accuracy - ends.low)], [100 * max(0.0, ends.high - accuracy)]],
        color=_COLOURS[place % len(_COLOURS)],
        marker=_MARKERS[place % len(_MARKERS)],
        markersize=8,
        linestyle="none",
        capsize=3,
        transform=axes.transData + moved,
        label=entry.name,
    )


def _label(entry: Entry) -> str:
    counted = "" if entry.cost.multiply_adds else ", multiply-adds not known"
    return f"{entry.name} ({entry.network}): {percent(entry.result.accuracy)}{counted}"


def _conditions(found: Comparison) -> str:
    conditions = found.conditions
    words = [f"{found.rows:,} images", f"batches of {conditions.batch_size}"]
    words.append(f"{conditions.cores} cores" if conditions.cores > 1 else "1 core")
    if conditions.flip_tta:
        words.append("accuracy with flips averaged, costs of one pass")
    return ", ".join(words)
