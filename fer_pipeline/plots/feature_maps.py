"""A picture of what the layers of a network make of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.metrics.samples import EvaluatedImages
from fer_pipeline.metrics.tables import format_percent
from fer_pipeline.plots.style import Canvas, save_figure

MAX_MAPS = 32
"""How many maps of a layer are drawn at most."""

Values = npt.NDArray[np.float32]

# All in inches.
_WIDTH, _MARGIN, _TITLE, _SCALE = 10.4, 0.3, 0.7, 0.75
_ACROSS = 16  # maps beside each other
_CELL = (_WIDTH - 2 * _MARGIN - _SCALE) / _ACROSS
_GUTTER = 0.035
_HEADING, _BELOW = 0.26, 0.22  # of a section
_FACE = 1.3
_UNITS_HEIGHT = 1.5

# Dark is nothing where no value is negative, else white is nothing.
_POSITIVE, _SIGNED = "viridis", "PuOr_r"


def draw_feature_maps(
    face: EvaluatedImages,
    outputs: Mapping[str, Values],
    classes: Sequence[str],
    about: str,
    path: Path,
) -> None:
    """Draws what layers give for one image, a section for each.

    The colours of a section have one scale, which stands beside it.

    Args:
        face: The image.
        outputs: For each layer, maps of shape (height, width, maps), or units of shape (units,).
            Of more than `SHOWN` maps those that vary most are drawn, in their order.
        classes: The names of the classes.
        about: What was evaluated on what.
        path: The PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    heights = [_HEADING + _scale_height(values) + _BELOW for values in outputs.values()]
    top = _TITLE + _FACE + _BELOW
    sheet = Canvas(_WIDTH, top + sum(heights))
    said = f"{classes[face.predicted[0]]} {format_percent(face.confidence[0])}"
    true = classes[face.label[0]]
    sheet.title(about, f"feature maps of row {face.row[0]}: {true}, taken for {said}")
    sheet.face(face.pixels[0], _MARGIN, _TITLE, _FACE)
    side = face.pixels.shape[1]
    origin = f"{face.source[0]}\nrecord {face.record[0]}, {face.variant[0]}\n{side}x{side} pixels"
    sheet.text(_MARGIN + _FACE + 0.15, _TITLE, origin, va="top")
    for (name, values), height in zip(outputs.items(), heights, strict=True):
        _section(sheet, name, values, top)
        top += height
    save_figure(sheet.figure, path)


def _section(sheet: Canvas, name: str, values: Values, top: float) -> None:
    shown, note = (
        (values, f"{values.size} units") if values.ndim == 1 else select_most_varied(values)
    )
    top += _HEADING
    sheet.text(_MARGIN, top - 0.08, f"{name}: {note}", fontsize=9.5, fontweight="bold")
    # Of all of the layer, also of what is not drawn.
    bound = float(abs(values).max()) or 1.0
    signed = bool(values.min() < 0)
    look: dict[str, Any] = {
        "cmap": _SIGNED if signed else _POSITIVE,
        "vmin": -bound if signed else 0.0,
        "vmax": bound,
    }
    if shown.ndim == 1:
        across = _units_across(len(shown))
        padded = np.full(math.ceil(len(shown) / across) * across, np.nan, np.float32)
        padded[: len(shown)] = shown
        width = across * _unit_side(len(shown))
        sheet.image(padded.reshape(-1, across), _MARGIN, top, width, _height(values), **look)
    else:
        for index in range(shown.shape[2]):
            row, column = divmod(index, _ACROSS)
            x, y = _MARGIN + column * _CELL, top + row * _CELL
            sheet.image(shown[:, :, index], x, y, _CELL - _GUTTER, **look)
    _scale(sheet, top, _scale_height(values), look)


def _scale(sheet: Canvas, top: float, height: float, look: Mapping[str, Any]) -> None:
    """The colours of a section, from the least value below to the largest above."""
    x = _WIDTH - _MARGIN - _SCALE + 0.1
    low, high = look["vmin"], look["vmax"]
    ramp = np.linspace(high, low, 64)[:, None]
    sheet.image(ramp, x, top, 0.1, height, **look)
    for value, y, where in ((high, top, "top"), (low, top + height, "bottom")):
        sheet.text(x + 0.15, y, f"{value:.3g}", va=where, fontsize=7)


def select_most_varied(maps: Values) -> tuple[Values, str]:
    """The maps that are drawn, at most `SHOWN`, and what is to be said of them.

    Args:
        maps: Of shape (height, width, maps).
    """
    height, width, count = maps.shape
    note = f"{count} maps of {height}x{width}"
    silent = int((maps == 0).all(axis=(0, 1)).sum())
    if silent:
        note += f", {silent} all 0"
    if count > MAX_MAPS:
        order = np.argsort(-maps.std(axis=(0, 1)), kind="stable")[:MAX_MAPS]
        maps = maps[:, :, np.sort(order)]
        note += f"; the {MAX_MAPS} that vary most"
    return maps, note


def _height(values: Values) -> float:
    """Of what a section draws of these."""
    if values.ndim == 1:
        return math.ceil(len(values) / _units_across(len(values))) * _unit_side(len(values))
    return math.ceil(min(values.shape[2], MAX_MAPS) / _ACROSS) * _CELL - _GUTTER


def _scale_height(values: Values) -> float:
    """Of the scale beside a section: at least that of its two numbers."""
    return max(_height(values), 0.3)


def _units_across(count: int) -> int:
    """How many units stand in a row: 64, or more where they would become too high."""
    return max(64, math.ceil(math.sqrt(count * _ACROSS * _CELL / _UNITS_HEIGHT)))


def _unit_side(count: int) -> float:
    return _ACROSS * _CELL / _units_across(count)
