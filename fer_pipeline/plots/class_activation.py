"""Plot of class activation maps (Grad-CAM), which show the evidence for a class in an image.

The evidence for a class at a position of an image is a number of 0 or more: how much the network's
features at this position increase the score of the class.
"""

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
"""Class activation map: evidence for a class at each position, >= 0, of shape (height, width)."""

_HEADERS = (
    "best correct",
    "its evidence",
    "worst mistake",
    "for the prediction",
    "for the true class",
)
_MISTAKE_COLUMN = 2  # first column of the worst mistake

# Lengths in inches.
_IMAGE_SIZE = 1.35  # height and width of an image
_GAP = 0.1  # between an image and its maps
_MISTAKE_GAP = 0.3  # additional gap before the worst mistake
_MARGIN = 0.3
_NAME_WIDTH = 1.0
_TITLE_HEIGHT = 0.7
_HEADER_HEIGHT = 0.55
_CAPTION_HEIGHT = 0.24


@dataclass(frozen=True)
class ActivatedImage:
    """Image with its class activation maps.

    Attributes:
        image: A single image.
        maps: Class activation maps by class index.
    """

    image: EvaluatedImages
    maps: Mapping[int, ActivationMap]


@dataclass(frozen=True)
class ClassActivations:
    """Two images of one class with their class activation maps.

    Attributes:
        best_correct: Correctly classified image with the highest confidence; None if all images
            of the class are wrongly classified.
        worst_mistake: Wrongly classified image with the highest confidence; None if all images of
            the class are correctly classified.
    """

    best_correct: ActivatedImage | None
    worst_mistake: ActivatedImage | None


def draw_class_activation(
    activations: Sequence[ClassActivations],
    classes: Sequence[str],
    layer: str,
    title: str,
    path: Path,
) -> None:
    """Save a plot of class activation maps over images, with one row per class.

    A row shows the correctly classified image with the highest confidence, and the map for its
    class. Then the row shows the worst mistake (the wrongly classified image with the highest
    confidence), and the maps for the predicted class and for the true class.

    Args:
        activations: Images and maps of each class, in the order of the classes.
        classes: Names of the classes.
        layer: Name of the layer whose output the maps are computed from.
        title: Title with the names of the model and the dataset.
        path: Path of the PNG file.

    Raises:
        StorageError: The file cannot be written.
    """
    width = _NAME_WIDTH + len(_HEADERS) * (_IMAGE_SIZE + _GAP) + _MISTAKE_GAP + 2 * _MARGIN - _GAP
    top = _TITLE_HEIGHT + _HEADER_HEIGHT
    row_height = _IMAGE_SIZE + _CAPTION_HEIGHT
    canvas = Canvas(width, top + len(classes) * row_height + 0.1)
    canvas.add_title(
        title,
        f"class activation (Grad-CAM) on {layer}",
        "bright: evidence for the class; each map has its own scale",
    )
    for column, header in enumerate(_HEADERS):
        x = _compute_column_left(column) + _IMAGE_SIZE / 2
        canvas.add_text(
            x, top - 0.1, header, ha="center", va="bottom", fontsize=9, fontweight="bold"
        )
    for row, (name, activation) in enumerate(zip(classes, activations, strict=True)):
        y = top + row * row_height
        canvas.add_text(
            _MARGIN, y + _IMAGE_SIZE / 2, name, va="center", fontsize=10, fontweight="bold"
        )
        _add_activated_image(canvas, activation.best_correct, 0, y, classes)
        _add_activated_image(canvas, activation.worst_mistake, _MISTAKE_COLUMN, y, classes)
    canvas.save(path)


def _add_activated_image(
    canvas: Canvas,
    activated: ActivatedImage | None,
    column: int,
    y: float,
    classes: Sequence[str],
) -> None:
    """Draw an image and its class activation maps in adjacent columns, with captions.

    Args:
        canvas: Canvas to draw on.
        activated: Image and maps; None to write the word "none".
        column: Index of the image's column; the maps are drawn in the next columns.
        y: Upper edge in inches.
        classes: Names of the classes.
    """
    x = _compute_column_left(column)
    if activated is None:
        canvas.add_text(x, y + _IMAGE_SIZE / 2, "none", va="center", color=TEXT_GREY)
        return
    image = activated.image
    canvas.add_image(image.pixels[0], x, y, _IMAGE_SIZE)
    prediction = f"{classes[image.predicted_label[0]]} {format_percent(image.confidence[0])}"
    caption_y = y + _IMAGE_SIZE + 0.14
    if image.is_wrong[0]:
        canvas.add_text(x, caption_y, f"✗ {prediction}", color=VERMILION, fontweight="bold")
    else:
        canvas.add_text(x, caption_y, f"✓ {prediction}")
    for map_column, (label, activation) in enumerate(activated.maps.items(), start=column + 1):
        x = _compute_column_left(map_column)
        canvas.add_image(image.pixels[0], x, y, _IMAGE_SIZE)
        is_nonzero = bool(activation.max())
        if is_nonzero:
            _add_activation_map(canvas, activation, x, y)
        caption = classes[label] if is_nonzero else f"{classes[label]}: none"
        canvas.add_text(x, caption_y, caption, color=TEXT_GREY)


def _add_activation_map(canvas: Canvas, activation: ActivationMap, x: float, y: float) -> None:
    """Draw a translucent class activation map over an image.

    The maximum of the map gets the brightest colour.

    Args:
        canvas: Canvas to draw on.
        activation: Class activation map with a maximum above 0.
        x: Left edge of the image, in inches.
        y: Upper edge of the image, in inches.
    """
    canvas.add_array(
        activation / float(activation.max()),
        x,
        y,
        _IMAGE_SIZE,
        vmin=0,
        vmax=1,
        cmap="inferno",
        interpolation="bilinear",
        alpha=0.55,
    )


def _compute_column_left(column: int) -> float:
    """Return the left edge of the column with this index, in inches."""
    mistake_gap = _MISTAKE_GAP if column >= _MISTAKE_COLUMN else 0
    return _MARGIN + _NAME_WIDTH + column * (_IMAGE_SIZE + _GAP) + mistake_gap
