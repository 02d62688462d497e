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

# The colour-blind palette without yellow, which is too pale on white, and with grey.
_COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY_BLUE, BLACK, GREY)
_MARKERS = "osD^vPX*"

_MARGIN_FACTOR = 1.6  # ratio of the end of a log axis to the outermost cost
_MIN_AXIS_RATIO = 10  # ratio of the upper to the lower end of a log axis
_SIMILAR_COSTS = 0.1  # largest difference of the natural logarithms of similar costs
_OFFSET_STEP = 9.0  # distance of points of similar costs, in points (1/72 inch)

_PANELS: tuple[tuple[str, Callable[[Cost], float | None]], ...] = (
    ("multiply-adds per image", lambda cost: cost.multiply_adds),
    ("parameters", lambda cost: cost.parameters),
    ("images a second, on this machine", lambda cost: cost.images_per_second),
)


def draw_accuracy_cost(comparison: Comparison, title: str, path: Path) -> None:
    """Save a plot of accuracy, with its 95 % confidence interval, against measures of cost.

    Three panels show the accuracy against multiply-adds, parameters, and images per second; these
    axes are logarithmic. The panel of multiply-adds omits models for which this number is unknown
    or 0. Points of similar costs are drawn side by side, as a note in the subtitle explains.

    Args:
        comparison: Results of the models.
        title: Title with the name of the dataset.
        path: Path of the PNG file.

    Raises:
        StorageError: The file cannot be written.
    """
    legend_rows = math.ceil(len(comparison.models) / 2)
    figure = Figure(figsize=(12, 4.6 + 0.25 * legend_rows), layout="constrained")
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    has_offsets = False
    for axes, (label, get_cost) in zip(panels, _PANELS, strict=True):
        costs = [get_cost(model.cost) for model in comparison.models]
        _format_cost_axis(axes, label, [cost for cost in costs if cost])
        offsets = _compute_offsets(costs)
        has_offsets = has_offsets or any(offsets)
        for index, (model, cost) in enumerate(zip(comparison.models, costs, strict=True)):
            if cost:
                _add_point(axes, model, cost, index, offsets[index])
    panels[0].set_ylabel("accuracy (%), with its 95 % interval")
    panels[0].set_ylim(_compute_accuracy_limits(comparison))
    _add_legend(figure, panels[1], comparison)
    subtitle = _format_subtitle(comparison)
    if has_offsets:
        subtitle += ", points whose costs differ by 10 % or less are side by side"
    add_title(figure, title, subtitle)
    save_figure(figure, path)


def _add_legend(figure: Figure, axes: Axes, comparison: Comparison) -> None:
    """Add a legend of all models below the panels.

    Args:
        figure: Figure to draw on.
        axes: Axes of a panel that contains all models.
        comparison: Results of the models.
    """
    legend = figure.legend(
        axes.get_legend_handles_labels()[0],
        [_format_legend_label(model) for model in comparison.models],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    for text in legend.get_texts():
        # The name of a folder may contain "$", which does not begin a formula.
        text.set_parse_math(False)


def _format_cost_axis(axes: Axes, label: str, costs: list[float]) -> None:
    """Set the log scale, the limits, the ticks and the label of a panel's horizontal axis.

    Args:
        axes: Axes of the panel.
        label: Label of the axis.
        costs: Costs of the models that are drawn, above 0. If empty, the limits are not set.
    """
    axes.set_xscale("log")
    axes.set_xlabel(label)
    if costs:
        lowest, highest = min(costs), max(costs)
        margin = max(_MARGIN_FACTOR, math.sqrt(_MIN_AXIS_RATIO * lowest / highest))
        left, right = lowest / margin, highest * margin
        axes.set_xlim(left, right)
        # Over few decades, powers of ten alone would give hardly any tick.
        ratio = right / left
        tick_factors = (1, 2, 5) if ratio < 40 else (1, 3) if ratio < 4000 else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=tick_factors))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    style_axes(axes)


def _compute_accuracy_limits(comparison: Comparison) -> tuple[float, float]:
    """Return the limits of the accuracy axis in per cent; they include all confidence intervals."""
    # Points with an offset do not contribute to the automatic limits.
    intervals = [model.metrics.intervals.accuracy for model in comparison.models]
    low = min(interval.low for interval in intervals)
    high = max(interval.high for interval in intervals)
    margin = max(0.01, 0.08 * (high - low))
    return 100 * (low - margin), 100 * (high + margin)


def _compute_offsets(costs: Sequence[float | None]) -> list[float]:
    """Return the horizontal offset of each point of a panel, in points (1/72 inch).

    Without an offset, points of similar costs would hide each other, for example those of two
    models with the same network.

    Args:
        costs: Cost of each model; None if unknown. A model whose cost is unknown or 0 is not drawn
            and has the offset 0.
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
    """Draw the accuracy of a model as a point with its confidence interval.

    Args:
        axes: Axes of the panel.
        model: Result of the model.
        cost: Cost of the model, above 0.
        index: Index of the model, which selects the colour and the marker.
        offset: Horizontal offset, in points (1/72 inch).
    """
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


def _format_legend_label(model: ModelResult) -> str:
    """Return the name, the network and the accuracy of a model, as one text.

    If the number of multiply-adds is unknown or 0, the text says that it is unknown.
    """
    note = "" if model.cost.multiply_adds else ", multiply-adds unknown"
    return f"{model.name} ({model.network}): {format_percent(model.metrics.accuracy)}{note}"


def _format_subtitle(comparison: Comparison) -> str:
    """Return the subtitle of the plot: the number of images and the inference settings."""
    settings = comparison.settings
    parts = [
        f"{comparison.image_count:,} images",
        f"batches of {settings.batch_size}",
        f"{settings.cores} cores" if settings.cores > 1 else "1 core",
    ]
    if settings.flip_tta:
        parts.append("accuracy with flip TTA, costs of one forward pass")
    return ", ".join(parts)
