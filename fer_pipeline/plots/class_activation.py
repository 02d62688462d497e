"""Plot of class activations (Grad-CAM): the evidence for a class within an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_pipeline.metrics.samples import EvaluatedImages
from fer_pipeline.metrics.tables import format_percent
from fer_pipeline.plots.style import TEXT_GREY, VERMILION, Canvas

ActivationMap = npt.NDArray[np.float32]

_HEADERS = ("recognised", "its evidence", "worst mistake", "for the prediction", "for the truth")
_MISTAKE_COLUMN = 2  # first column of the worst mistake

# In inches.
_SIDE = 1.35  # of an image
_GAP = 0.1  # between an image and its maps
_MISTAKE_GAP = 0.3  # additional gap before the worst mistake
_MARGIN = 0.3
_NAME_WIDTH = 1.0
_TITLE_HEIGHT = 0.7
_HEADER_HEIGHT = 0.55
_CAPTION_HEIGHT = 0.24


@dataclass(frozen=True)
class ActivatedImage:
    """One image with its class activations.

    Attributes:
        image: The image, alone.
        maps: Map of shape (height, width), at least 0, by the class whose evidence it shows.
    """

    image: EvaluatedImages
    maps: Mapping[int, ActivationMap]


@dataclass(frozen=True)
class ClassActivations:
    """The two images of one class in the plot.

    Attributes:
        recognised: The image that is recognised with the highest probability, if any.
        mistake: The image that is wrong with the highest probability, if any.
    """

    recognised: ActivatedImage | None
    mistake: ActivatedImage | None


def draw_class_activation(
    activations: Sequence[ClassActivations],
    classes: Sequence[str],
    layer: str,
    title: str,
    path: Path,
) -> None:
    """Draw class activations over images, a row for each class.

    A row shows the image that is recognised with the highest probability, with the evidence for the
    class, and the worst mistake, with the evidence for the predicted and for the true class.

    Args:
        activations: Images and maps of each class.
        classes: Names of the classes.
        layer: Name of the layer that the maps come from.
        title: Title that names the model and the dataset.
        path: Path of the PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    width = _NAME_WIDTH + len(_HEADERS) * (_SIDE + _GAP) + _MISTAKE_GAP + 2 * _MARGIN - _GAP
    top = _TITLE_HEIGHT + _HEADER_HEIGHT
    row_height = _SIDE + _CAPTION_HEIGHT
    canvas = Canvas(width, top + len(classes) * row_height + 0.1)
    canvas.add_title(
        title,
        f"class activation (Grad-CAM) on {layer}",
        "bright: speaks for the class; each map has its own scale",
    )
    for column, header in enumerate(_HEADERS):
        x = _column_left(column) + _SIDE / 2
        canvas.add_text(
            x, top - 0.1, header, ha="center", va="bottom", fontsize=9, fontweight="bold"
        )
    for row, (name, activation) in enumerate(zip(classes, activations, strict=True)):
        y = top + row * row_height
        canvas.add_text(_MARGIN, y + _SIDE / 2, name, va="center", fontsize=10, fontweight="bold")
        _add_activated_image(canvas, activation.recognised, 0, y, classes)
        _add_activated_image(canvas, activation.mistake, _MISTAKE_COLUMN, y, classes)
    canvas.save(path)


def _add_activated_image(
    canvas: Canvas,
    activated: ActivatedImage | None,
    column: int,
    y: float,
    classes: Sequence[str],
) -> None:
    """Draw an image and its maps in adjacent columns, or "none"."""
    x = _column_left(column)
    if activated is None:
        canvas.add_text(x, y + _SIDE / 2, "none", va="center", color=TEXT_GREY)
        return
    image = activated.image
    canvas.add_image(image.pixels[0], x, y, _SIDE)
    prediction = f"{classes[image.predicted_label[0]]} {format_percent(image.confidence[0])}"
    caption_y = y + _SIDE + 0.14
    if image.is_wrong[0]:
        canvas.add_text(x, caption_y, f"✗ {prediction}", color=VERMILION, fontweight="bold")
    else:
        canvas.add_text(x, caption_y, f"✓ {prediction}")
    for map_column, (label, activation) in enumerate(activated.maps.items(), start=column + 1):
        x = _column_left(map_column)
        canvas.add_image(image.pixels[0], x, y, _SIDE)
        has_evidence = bool(activation.max())
        if has_evidence:
            _add_map(canvas, activation, x, y)
        caption = classes[label] if has_evidence else f"{classes[label]}: none"
        canvas.add_text(x, caption_y, caption, color=TEXT_GREY)


def _add_map(canvas: Canvas, activation: ActivationMap, x: float, y: float) -> None:
    """Draw a map over an image, scaled to its highest value."""
    canvas.add_array(
        activation / float(activation.max()),
        x,
        y,
        _SIDE,
        vmin=0,
        vmax=1,
        cmap="inferno",
        interpolation="bilinear",
        alpha=0.55,
    )


def _column_left(column: int) -> float:
    mistake_gap = _MISTAKE_GAP if column >= _MISTAKE_COLUMN else 0
    return _MARGIN + _NAME_WIDTH + column * (_SIDE + _GAP) + mistake_gap
