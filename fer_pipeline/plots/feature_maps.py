"""Plot of the outputs of a network's layers for one image.

The output of a convolution layer is a stack of feature maps. The output of a dense layer is a
vector of units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.metrics.samples import EvaluatedImages
from fer_pipeline.metrics.tables import format_percent
from fer_pipeline.plots.style import Canvas

MAX_MAPS = 32
"""Maximum number of feature maps per layer in the plot."""

LayerOutput = npt.NDArray[np.float32]
"""Feature maps of shape (height, width, maps), or units of shape (units,)."""

_MAPS_PER_ROW = 16

# Lengths in inches.
_WIDTH = 10.4
_MARGIN = 0.3
_TITLE_HEIGHT = 0.7
_SCALE_WIDTH = 0.75  # colour scale and its numbers
_MIN_SCALE_HEIGHT = 0.3  # enough for two numbers
_ROW_WIDTH = _WIDTH - 2 * _MARGIN - _SCALE_WIDTH
_MAP_STEP = _ROW_WIDTH / _MAPS_PER_ROW
_MAP_GAP = 0.035
_HEADING_HEIGHT = 0.26
_SECTION_GAP = 0.22
_IMAGE_SIZE = 1.3
_MAX_UNITS_HEIGHT = 1.5

_MIN_UNITS_PER_ROW = 64

_POSITIVE_COLORS = "viridis"  # dark is 0
_SIGNED_COLORS = "PuOr_r"  # white is 0


def draw_feature_maps(
    image: EvaluatedImages,
    outputs: Mapping[str, LayerOutput],
    classes: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Save a plot of the outputs of layers for one image, with one section per layer.

    Each section has its own colour scale. If a layer has more than 32 feature maps, only the 32
    maps with the highest standard deviation are drawn, in their original order.

    Args:
        image: A single image.
        outputs: Output of each layer, by name of the layer: feature maps of shape (height, width,
            maps), or units of shape (units,).
        classes: Names of the classes.
        title: Title with the names of the model and the dataset.
        path: Path of the PNG file.

    Raises:
        StorageError: The file cannot be written.
    """
    heights = [
        _HEADING_HEIGHT + _compute_section_body_height(output) + _SECTION_GAP
        for output in outputs.values()
    ]
    top = _TITLE_HEIGHT + _IMAGE_SIZE + _SECTION_GAP
    canvas = Canvas(_WIDTH, top + sum(heights))
    prediction = f"{classes[image.predicted_label[0]]} {format_percent(image.confidence[0])}"
    true_class = classes[image.label[0]]
    canvas.add_title(
        title, f"feature maps of row {image.row[0]}: {true_class}, taken for {prediction}"
    )
    canvas.add_image(image.pixels[0], _MARGIN, _TITLE_HEIGHT, _IMAGE_SIZE)
    size = image.pixels.shape[1]
    origin = (
        f"{image.source[0]}\nrecord {image.record[0]}, {image.variant[0]}\n{size}x{size} pixels"
    )
    canvas.add_text(_MARGIN + _IMAGE_SIZE + 0.15, _TITLE_HEIGHT, origin, va="top")
    for (name, output), height in zip(outputs.items(), heights, strict=True):
        _add_section(canvas, name, output, top)
        top += height
    canvas.save(path)


def _add_section(canvas: Canvas, name: str, output: LayerOutput, top: float) -> None:
    """Draw the heading, the output and the colour scale of a layer.

    Args:
        canvas: Canvas to draw on.
        name: Name of the layer.
        output: Output of the layer: feature maps of shape (height, width, maps), or units of shape
            (units,).
        top: Upper edge of the section, in inches.
    """
    image_top = top + _HEADING_HEIGHT
    color_options = _choose_color_options(output)
    if output.ndim == 1:
        note = f"{output.size} units"
        _add_units(canvas, output, image_top, color_options)
    else:
        feature_maps, note = select_most_varied_maps(output)
        _add_maps(canvas, feature_maps, image_top, color_options)
    heading = f"{name}: {note}"
    canvas.add_text(_MARGIN, image_top - 0.08, heading, fontsize=9.5, fontweight="bold")
    _add_color_scale(canvas, image_top, _compute_section_body_height(output), color_options)


def _choose_color_options(output: LayerOutput) -> dict[str, Any]:
    """Return options of `Axes.imshow` for a layer's output: a colour map and its limits.

    If there are negative values, the colour map and its limits are symmetric around 0, and the
    limits include all values. Otherwise the limits are 0 and the largest value, or 0 and 1 if all
    values are 0.
    """
    bound = float(abs(output).max()) or 1.0
    if output.min() < 0:
        return {"cmap": _SIGNED_COLORS, "vmin": -bound, "vmax": bound}
    return {"cmap": _POSITIVE_COLORS, "vmin": 0.0, "vmax": bound}


def _add_units(
    canvas: Canvas, units: LayerOutput, top: float, color_options: Mapping[str, Any]
) -> None:
    """Draw the outputs of the units of a dense layer as a grid of coloured cells.

    Args:
        canvas: Canvas to draw on.
        units: Output of each unit, of shape (units,).
        top: Upper edge of the grid, in inches.
        color_options: Colour map and its limits, as for `Axes.imshow`.
    """
    per_row = _count_units_per_row(len(units))
    padded = np.full(math.ceil(len(units) / per_row) * per_row, np.nan, np.float32)
    padded[: len(units)] = units
    grid = padded.reshape(-1, per_row)
    canvas.add_array(grid, _MARGIN, top, _ROW_WIDTH, _compute_plot_height(units), **color_options)


def _add_maps(
    canvas: Canvas, feature_maps: LayerOutput, top: float, color_options: Mapping[str, Any]
) -> None:
    """Draw feature maps in rows of 16 maps.

    Args:
        canvas: Canvas to draw on.
        feature_maps: Feature maps of shape (height, width, maps).
        top: Upper edge of the first row, in inches.
        color_options: Colour map and its limits, as for `Axes.imshow`.
    """
    for index in range(feature_maps.shape[2]):
        row, column = divmod(index, _MAPS_PER_ROW)
        x, y = _MARGIN + column * _MAP_STEP, top + row * _MAP_STEP
        canvas.add_array(feature_maps[:, :, index], x, y, _MAP_STEP - _MAP_GAP, **color_options)


def _add_color_scale(
    canvas: Canvas, top: float, height: float, color_options: Mapping[str, Any]
) -> None:
    """Draw the colour scale of a layer's output, with the lowest and the highest value.

    Args:
        canvas: Canvas to draw on.
        top: Upper edge of the scale, in inches.
        height: Height of the scale, in inches.
        color_options: Colour map and its limits, as for `Axes.imshow`.
    """
    x = _WIDTH - _MARGIN - _SCALE_WIDTH + 0.1
    low, high = color_options["vmin"], color_options["vmax"]
    ramp = np.linspace(high, low, 64)[:, None]
    canvas.add_array(ramp, x, top, 0.1, height, **color_options)
    canvas.add_text(x + 0.15, top, f"{high:.3g}", va="top", fontsize=7)
    canvas.add_text(x + 0.15, top + height, f"{low:.3g}", va="bottom", fontsize=7)


def select_most_varied_maps(feature_maps: LayerOutput) -> tuple[LayerOutput, str]:
    """Select the 32 feature maps of a layer with the highest standard deviation.

    All maps are selected if there are at most 32.

    Args:
        feature_maps: Feature maps of shape (height, width, maps).

    Returns:
        The selected maps in their original order, and a note for the plot. The note states the
        number and the size of the maps, how many of them are all 0, and whether some were left out.
    """
    height, width, map_count = feature_maps.shape
    note = f"{map_count} maps of {height}x{width}"
    zero_count = int((feature_maps == 0).all(axis=(0, 1)).sum())
    if zero_count:
        note += f", {zero_count} all 0"
    if map_count > MAX_MAPS:
        order = np.argsort(-feature_maps.std(axis=(0, 1)), kind="stable")[:MAX_MAPS]
        feature_maps = feature_maps[:, :, np.sort(order)]
        note += f"; the {MAX_MAPS} that vary most"
    return feature_maps, note


def _compute_plot_height(output: LayerOutput) -> float:
    """Return the height, in inches, of a layer's feature maps or units in the plot."""
    if output.ndim == 1:
        per_row = _count_units_per_row(len(output))
        return math.ceil(len(output) / per_row) * _ROW_WIDTH / per_row
    return math.ceil(min(output.shape[2], MAX_MAPS) / _MAPS_PER_ROW) * _MAP_STEP - _MAP_GAP


def _compute_section_body_height(output: LayerOutput) -> float:
    """Return the height of a layer's section without its heading, in inches.

    The section is high enough for the output and for the numbers of the colour scale.
    """
    return max(_compute_plot_height(output), _MIN_SCALE_HEIGHT)


def _count_units_per_row(unit_count: int) -> int:
    """Return the number of units in a row of the plot of a dense layer.

    The number is 64, or larger if the plot would otherwise be higher than 1.5 inches.

    Args:
        unit_count: Number of units of the layer.
    """
    return max(
        _MIN_UNITS_PER_ROW, math.ceil(math.sqrt(unit_count * _ROW_WIDTH / _MAX_UNITS_HEIGHT))
    )
