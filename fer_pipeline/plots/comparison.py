"""Plot of a comparison of models: accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from fer_pipeline.metrics.comparison import Comparison, Cost, ModelResult
from fer_pipeline.metrics.tables import format_percent
from fer_pipeline.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILION,
    add_title,
    save_figure,
    style_axes,
)

# The palette without its yellow, which is too pale on white, and grey.
_COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY_BLUE, BLACK, GREY)
_MARKERS = "osD^vPX*"

_MARGIN_FACTOR = 1.6  # by which a log axis extends beyond its points
_MIN_AXIS_RATIO = 10  # of the ends of a log axis
_SIMILAR_COSTS = 0.1  # difference of natural logarithms
_OFFSET_STEP = 9.0  # between points of similar costs, in points of 1/72 inch

_PANELS: tuple[tuple[str, Callable[[Cost], float | None]], ...] = (
    ("multiply-adds per image", lambda cost: cost.multiply_adds),
    ("parameters", lambda cost: cost.parameters),
    ("images a second, on this machine", lambda cost: cost.images_per_second),
)


def draw_accuracy_cost(comparison: Comparison, title: str, path: Path) -> None:
    """Draw accuracy, with its 95 % interval, against three costs on log axes.

    A model whose multiply-adds are unknown or 0 is missing in that panel. Models of similar costs
    are plotted side by side, and the title then says so.

    Args:
        comparison: Results of the models.
        title: Title that names the dataset.
        path: Path of the PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    legend_rows = math.ceil(len(comparison.models) / 2)
    figure = Figure(figsize=(12, 4.6 + 0.25 * legend_rows), layout="constrained")
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    has_offsets = False
    for axes, (label, get_cost) in zip(panels, _PANELS, strict=True):
        costs = [get_cost(model.cost) for model in comparison.models]
        _set_cost_axis(axes, label, [cost for cost in costs if cost])
        offsets = _compute_offsets(costs)
        has_offsets = has_offsets or any(offsets)
        for index, (model, cost) in enumerate(zip(comparison.models, costs, strict=True)):
            if cost:
                _add_point(axes, model, cost, index, offsets[index])
    panels[0].set_ylabel("accuracy (%), with its 95 % interval")
    panels[0].set_ylim(_accuracy_limits(comparison))
    _add_legend(figure, panels[1], comparison)
    subtitle = _settings_text(comparison)
    if has_offsets:
        subtitle += ", points whose costs differ by a tenth or less stand side by side"
    add_title(figure, title, subtitle)
    save_figure(figure, path)


def _add_legend(figure: Figure, axes: Axes, comparison: Comparison) -> None:
    """Add a legend of all models.

    Args:
        figure: Figure to draw on.
        axes: Axes that contain all models, such as those of the parameters.
        comparison: Results of the models.
    """
    legend = figure.legend(
        axes.get_legend_handles_labels()[0],
        [_legend_label(model) for model in comparison.models],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    for text in legend.get_texts():
        # The name of a folder may contain "$", which does not begin a formula.
        text.set_parse_math(False)


def _set_cost_axis(axes: Axes, label: str, costs: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(label)
    if costs:
        lowest, highest = min(costs), max(costs)
        margin = max(_MARGIN_FACTOR, math.sqrt(_MIN_AXIS_RATIO * lowest / highest))
        left, right = lowest / margin, highest * margin
        axes.set_xlim(left, right)
        # As many ticks as fit: over few decades, powers of ten would be hardly one tick.
        ratio = right / left
        tick_factors = (1, 2, 5) if ratio < 40 else (1, 3) if ratio < 4000 else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=tick_factors))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    style_axes(axes)


def _accuracy_limits(comparison: Comparison) -> tuple[float, float]:
    """Return the ends of the accuracy axis, in per cent: all intervals, and a margin."""
    # Points with an offset do not contribute to the automatic limits.
    intervals = [model.metrics.intervals.accuracy for model in comparison.models]
    low = min(interval.low for interval in intervals)
    high = max(interval.high for interval in intervals)
    margin = max(0.01, 0.08 * (high - low))
    return 100 * (low - margin), 100 * (high + margin)


def _compute_offsets(costs: Sequence[float | None]) -> list[float]:
    """Return the horizontal offset of each point, in points of 1/72 inch.

    Points of similar costs, for example of one network that was trained twice, would hide each
    other.
    """
    log_costs = {index: math.log(cost) for index, cost in enumerate(costs) if cost}
    groups: list[list[int]] = []
    for index in sorted(log_costs, key=lambda index: (log_costs[index], index)):
        if groups and log_costs[index] - log_costs[groups[-1][-1]] < _SIMILAR_COSTS:
            groups[-1].append(index)
        else:
            groups.append([index])
    offsets = [0.0] * len(costs)
    for group in groups:
        for position, index in enumerate(group):
            offsets[index] = _OFFSET_STEP * (position - (len(group) - 1) / 2)
    return offsets


def _add_point(axes: Axes, model: ModelResult, cost: float, index: int, offset: float) -> None:
    translation = ScaledTranslation(offset / 72, 0, axes.figure.dpi_scale_trans)
    accuracy, interval = model.metrics.accuracy, model.metrics.intervals.accuracy
    # Rounding may make an error bar at 0 or 1 slightly negative.
    lower, upper = max(0.0, accuracy - interval.low), max(0.0, interval.high - accuracy)
    axes.errorbar(
        cost,
        100 * accuracy,
        yerr=[[100 * lower], [100 * upper]],
        color=_COLORS[index % len(_COLORS)],
        marker=_MARKERS[index % len(_MARKERS)],
        markersize=8,
        linestyle="none",
        capsize=3,
        transform=axes.transData + translation,
        label=model.name,
    )


def _legend_label(model: ModelResult) -> str:
    note = "" if model.cost.multiply_adds else ", multiply-adds not known"
    return f"{model.name} ({model.network}): {format_percent(model.metrics.accuracy)}{note}"


def _settings_text(comparison: Comparison) -> str:
    settings = comparison.settings
    parts = [
        f"{comparison.image_count:,} images",
        f"batches of {settings.batch_size}",
        f"{settings.cores} cores" if settings.cores > 1 else "1 core",
    ]
    if settings.flip_tta:
        parts.append("accuracy with flips averaged, costs of one pass")
    return ", ".join(parts)
