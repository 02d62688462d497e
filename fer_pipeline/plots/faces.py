"""Grids of images with their true and predicted classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePath

from fer_pipeline.metrics.samples import MAX_IMAGES, EvaluatedImages
from fer_pipeline.metrics.tables import format_percent
from fer_pipeline.plots.style import TEXT_GREY, VERMILION, Canvas

# Lengths in inches.
_IMAGE_SIZE = 1.5  # height and width of an image
_GAP = 0.18  # between images
_MARGIN = 0.25
_TITLE_HEIGHT = 0.75
_LINE_HEIGHT = 0.15
_ROW_GAP = 0.2  # below the text of a row

_COLUMNS = math.isqrt(MAX_IMAGES)
_MAX_ORIGIN_LENGTH = 24  # characters that fit below an image


def draw_examples(
    images: EvaluatedImages, classes: Sequence[str], title: str, seed: int, path: Path
) -> None:
    """Save a grid of sampled images with their predicted and true classes.

    A wrong prediction is marked with a frame, a cross and bold text.

    Args:
        images: One or more images to draw.
        classes: Names of the classes.
        title: Title with the names of the model and the dataset.
        seed: Seed with which the images were sampled.
        path: Path of the PNG file.

    Raises:
        StorageError: The file cannot be written.
    """
    wrong_count = int(images.is_wrong.sum())
    counts = f"{len(images) - wrong_count} ✓, {wrong_count} ✗"
    subtitle = f"{len(images)} images sampled with seed {seed}: {counts}"
    canvas = _create_canvas(len(images), 2, title, subtitle)
    for index, (label, predicted) in enumerate(
        zip(images.label, images.predicted_label, strict=True)
    ):
        x, y = _compute_image_position(index, 2)
        canvas.add_image(images.pixels[index], x, y, _IMAGE_SIZE)
        text_y = y + _IMAGE_SIZE + _LINE_HEIGHT
        prediction = f"{classes[predicted]} {format_percent(images.confidence[index])}"
        if label == predicted:
            canvas.add_text(x, text_y, f"✓ {prediction}")
        else:
            canvas.add_frame(x, y, _IMAGE_SIZE, VERMILION)
            canvas.add_text(x, text_y, f"✗ {prediction}", color=VERMILION, fontweight="bold")
        canvas.add_text(x, text_y + _LINE_HEIGHT, f"true: {classes[label]}", color=TEXT_GREY)
    canvas.save(path)


def draw_mistakes(images: EvaluatedImages, classes: Sequence[str], title: str, path: Path) -> None:
    """Save a grid of wrongly classified images, each with its source file and record number.

    Args:
        images: Wrongly classified images, in the order in which they are drawn; may be empty.
        classes: Names of the classes.
        title: Title with the names of the model and the dataset.
        path: Path of the PNG file.

    Raises:
        StorageError: The file cannot be written.
    """
    count = f"the {len(images)} wrong predictions of highest probability" if len(images) else "none"
    canvas = _create_canvas(len(images), 3, title, f"worst mistakes: {count}")
    for index, (label, predicted) in enumerate(
        zip(images.label, images.predicted_label, strict=True)
    ):
        x, y = _compute_image_position(index, 3)
        canvas.add_image(images.pixels[index], x, y, _IMAGE_SIZE)
        text_y = y + _IMAGE_SIZE + _LINE_HEIGHT
        prediction = f"{classes[predicted]} {format_percent(images.confidence[index])}"
        truth = f"{classes[label]} {format_percent(images.probabilities[index, label])}"
        canvas.add_text(x, text_y, f"✗ {prediction}", color=VERMILION, fontweight="bold")
        canvas.add_text(x, text_y + _LINE_HEIGHT, f"true: {truth}")
        canvas.add_text(
            x,
            text_y + 2 * _LINE_HEIGHT,
            _format_origin(images, index),
            color=TEXT_GREY,
            fontsize=7,
        )
    canvas.save(path)


def _create_canvas(image_count: int, line_count: int, *title: str) -> Canvas:
    """Create a canvas for a grid of images, and draw its title.

    Args:
        image_count: Number of images.
        line_count: Number of text lines below each image.
        title: Lines of the title.
    """
    rows = math.ceil(image_count / _COLUMNS)
    width = 2 * _MARGIN + _COLUMNS * (_IMAGE_SIZE + _GAP) - _GAP
    canvas = Canvas(width, _TITLE_HEIGHT + rows * _compute_row_height(line_count) + _MARGIN / 2)
    canvas.add_title(*title)
    return canvas


def _compute_row_height(line_count: int) -> float:
    """Return the height of a row of the grid with its text and the gap below, in inches.

    Args:
        line_count: Number of text lines below each image.
    """
    return _IMAGE_SIZE + line_count * _LINE_HEIGHT + _ROW_GAP


def _compute_image_position(index: int, line_count: int) -> tuple[float, float]:
    """Return the upper left corner (x, y) of an image, in inches.

    Args:
        index: Position of the image in the grid, counted row by row from 0.
        line_count: Number of text lines below each image.
    """
    row, column = divmod(index, _COLUMNS)
    return _MARGIN + column * (_IMAGE_SIZE + _GAP), _TITLE_HEIGHT + row * _compute_row_height(
        line_count
    )


def _format_origin(images: EvaluatedImages, index: int) -> str:
    """Return the name of an image's source file, shortened if necessary, and its record number."""
    record = f" record {images.record[index]}"
    name = PurePath(str(images.source[index])).name
    max_length = max(_MAX_ORIGIN_LENGTH - len(record), 4)
    return (name if len(name) <= max_length else f"{name[: max_length - 1]}…") + record
