"""Plot of the outputs of a network's layers for one image."""

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
"""Most maps that are plotted of a layer."""

LayerOutput = npt.NDArray[np.float32]

_MAPS_PER_ROW = 16

# In inches.
_WIDTH = 10.4
_MARGIN = 0.3
_TITLE_HEIGHT = 0.7
_SCALE_WIDTH = 0.75  # of the colour scale and its numbers
_MIN_SCALE_HEIGHT = 0.3  # room for two numbers
_ROW_WIDTH = _WIDTH - 2 * _MARGIN - _SCALE_WIDTH
_MAP_PITCH = _ROW_WIDTH / _MAPS_PER_ROW
_MAP_GAP = 0.035
_HEADING_HEIGHT = 0.26
_SECTION_GAP = 0.22
_IMAGE_SIDE = 1.3
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
    """Draw the outputs of layers for one image, a section for each layer.

    Each section has its own colour scale beside it.

    Args:
        image: The image, alone.
        outputs: Output of each layer: maps of shape (height, width, maps), or units of shape
            (units,). If there are more than `MAX_MAPS` maps, those with the highest standard
            deviation are plotted, in their order.
        classes: Names of the classes.
        title: Title that names the model and the dataset.
        path: Path of the PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    heights = [
        _HEADING_HEIGHT + _section_height(output) + _SECTION_GAP for output in outputs.values()
    ]
    top = _TITLE_HEIGHT + _IMAGE_SIDE + _SECTION_GAP
    canvas = Canvas(_WIDTH, top + sum(heights))
    prediction = f"{classes[image.predicted_label[0]]} {format_percent(image.confidence[0])}"
    true_class = classes[image.label[0]]
    canvas.add_title(
        title, f"feature maps of row {image.row[0]}: {true_class}, taken for {prediction}"
    )
    canvas.add_image(image.pixels[0], _MARGIN, _TITLE_HEIGHT, _IMAGE_SIDE)
    side = image.pixels.shape[1]
    origin = (
        f"{image.source[0]}\nrecord {image.record[0]}, {image.variant[0]}\n{side}x{side} pixels"
    )
    canvas.add_text(_MARGIN + _IMAGE_SIDE + 0.15, _TITLE_HEIGHT, origin, va="top")
    for (name, output), height in zip(outputs.items(), heights, strict=True):
        _add_section(canvas, name, output, top)
        top += height
    canvas.save(path)


def _add_section(canvas: Canvas, name: str, output: LayerOutput, top: float) -> None:
    is_units = output.ndim == 1
    shown_output, note = (
        (output, f"{output.size} units") if is_units else select_varied_maps(output)
    )
    top += _HEADING_HEIGHT
    canvas.add_text(_MARGIN, top - 0.08, f"{name}: {note}", fontsize=9.5, fontweight="bold")
    color_options = _color_options(output)
    if is_units:
        _add_units(canvas, shown_output, top, color_options)
    else:
        _add_maps(canvas, shown_output, top, color_options)
    _add_color_scale(canvas, top, _section_height(output), color_options)


def _color_options(output: LayerOutput) -> dict[str, Any]:
    """Return the colour map of a layer and its limits, which cover all of its maps."""
    bound = float(abs(output).max()) or 1.0
    if output.min() < 0:
        return {"cmap": _SIGNED_COLORS, "vmin": -bound, "vmax": bound}
    return {"cmap": _POSITIVE_COLORS, "vmin": 0.0, "vmax": bound}


def _add_units(
    canvas: Canvas, units: LayerOutput, top: float, color_options: Mapping[str, Any]
) -> None:
    per_row = _units_per_row(len(units))
    padded = np.full(math.ceil(len(units) / per_row) * per_row, np.nan, np.float32)
    padded[: len(units)] = units
    grid = padded.reshape(-1, per_row)
    canvas.add_array(grid, _MARGIN, top, _ROW_WIDTH, _output_height(units), **color_options)


def _add_maps(
    canvas: Canvas, maps: LayerOutput, top: float, color_options: Mapping[str, Any]
) -> None:
    for index in range(maps.shape[2]):
        row, column = divmod(index, _MAPS_PER_ROW)
        x, y = _MARGIN + column * _MAP_PITCH, top + row * _MAP_PITCH
        canvas.add_array(maps[:, :, index], x, y, _MAP_PITCH - _MAP_GAP, **color_options)


def _add_color_scale(
    canvas: Canvas, top: float, height: float, color_options: Mapping[str, Any]
) -> None:
    """Draw the colours of a section, from the lowest value at the bottom to the highest."""
    x = _WIDTH - _MARGIN - _SCALE_WIDTH + 0.1
    low, high = color_options["vmin"], color_options["vmax"]
    ramp = np.linspace(high, low, 64)[:, None]
    canvas.add_array(ramp, x, top, 0.1, height, **color_options)
    canvas.add_text(x + 0.15, top, f"{high:.3g}", va="top", fontsize=7)
    canvas.add_text(x + 0.15, top + height, f"{low:.3g}", va="bottom", fontsize=7)


def select_varied_maps(maps: LayerOutput) -> tuple[LayerOutput, str]:
    """Return the maps to draw, at most `MAX_MAPS`, and a note on their number.

    Args:
        maps: Maps of shape (height, width, maps).
    """
    height, width, count = maps.shape
    note = f"{count} maps of {height}x{width}"
    zero_count = int((maps == 0).all(axis=(0, 1)).sum())
    if zero_count:
        note += f", {zero_count} all 0"
    if count > MAX_MAPS:
        order = np.argsort(-maps.std(axis=(0, 1)), kind="stable")[:MAX_MAPS]
        maps = maps[:, :, np.sort(order)]
        note += f"; the {MAX_MAPS} that vary most"
    return maps, note


def _output_height(output: LayerOutput) -> float:
    """Return the height that the maps or units of a layer take, in inches."""
    if output.ndim == 1:
        per_row = _units_per_row(len(output))
        return math.ceil(len(output) / per_row) * _ROW_WIDTH / per_row
    return math.ceil(min(output.shape[2], MAX_MAPS) / _MAPS_PER_ROW) * _MAP_PITCH - _MAP_GAP


def _section_height(output: LayerOutput) -> float:
    """Return the height of a section without its heading, in inches."""
    return max(_output_height(output), _MIN_SCALE_HEIGHT)


def _units_per_row(count: int) -> int:
    """Return the number of units side by side: 64, or more to limit the height."""
    return max(_MIN_UNITS_PER_ROW, math.ceil(math.sqrt(count * _ROW_WIDTH / _MAX_UNITS_HEIGHT)))
