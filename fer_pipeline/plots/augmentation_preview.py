"""Plot of training images before and after augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.plots.style import Canvas

Images = npt.NDArray[np.float32]
"""Pixel values in [0, 255], of shape (rows, size, size)."""

_MAX_COLUMNS_WITH_SAMPLES = 10
"""Maximum number of per-operation columns that share a band with the sampled examples."""

_GREY = "#666666"

# Lengths in dots, so that each pixel of an image covers a whole number of dots.
_DPI = 100  # dots per inch
_MIN_IMAGE_SIZE = 80  # height and width
_GAP = 6  # between images
_GROUP_GAP = 24
_MARGIN = 20
_TITLE_HEIGHT = 62
_HEADER_HEIGHT = 42
_LABEL_HEIGHT = 22
_CAPTION_HEIGHT = 30
_NAME_CHARACTER_WIDTH = 9
# Upper limits for almost all characters.
_TITLE_CHARACTER_WIDTH = 11
_SUBTITLE_CHARACTER_WIDTH = 7


@dataclass(frozen=True)
class ExampleColumn:
    """Column of the plot: one changed version of the image of each row.

    Attributes:
        label: Short description of the change.
        images: Changed images, one per row.
        captions: Text of up to two lines below each image; empty if there are no captions.
    """

    label: str
    images: Images
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExampleGroup:
    """Columns of the plot under a common heading.

    Attributes:
        title: Name of the augmentation operation, such as a rotation.
        range: Parameter range of the operation, as text.
        columns: Examples of the operation.
    """

    title: str
    range: str
    columns: tuple[ExampleColumn, ...]


@dataclass(frozen=True)
class AugmentationExamples:
    """Images before and after augmentation.

    Attributes:
        row_names: Names of the rows.
        originals: Image of each row before augmentation.
        per_operation: Groups that each show a single augmentation operation.
        sampled: Groups that show random combinations of all operations, as in training.
    """

    row_names: Sequence[str]
    originals: Images
    per_operation: Sequence[ExampleGroup]
    sampled: Sequence[ExampleGroup]


Band = Sequence[ExampleGroup]
"""Horizontal strip of the plot, with groups side by side."""


def count_sample_band_columns(per_operation: Sequence[ExampleGroup]) -> int:
    """Return the number of columns in the separate band of sampled examples.

    Sampled examples show random combinations of all augmentation operations. If the examples of
    single operations need more than 10 columns, the sampled examples are shown in a separate band
    (horizontal strip of the plot), which has equally many columns.

    Args:
        per_operation: Groups of columns that each show a single augmentation operation.

    Returns:
        The number of columns; 0 if there is no separate band.
    """
    column_count = sum(len(group.columns) for group in per_operation)
    return column_count if column_count > _MAX_COLUMNS_WITH_SAMPLES else 0


def draw_augmentation_preview(
    examples: AugmentationExamples, title: str, subtitle: str, path: Path
) -> None:
    """Save a plot of images before and after augmentation, with one row per image.

    Args:
        examples: Images to draw, before and after augmentation.
        title: First line of the title.
        subtitle: Second line of the title.
        path: Path of the PNG file.

    Raises:
        StorageError: The file cannot be written.
    """
    originals = ExampleGroup("original", "", (ExampleColumn("", examples.originals),))
    if count_sample_band_columns(examples.per_operation):
        bands = [[originals, *examples.per_operation], [originals, *examples.sampled]]
    else:
        bands = [[originals, *examples.per_operation, *examples.sampled]]
    layout = _Layout(examples.row_names, examples.originals.shape[1])
    title_width = max(
        _TITLE_CHARACTER_WIDTH * len(title), _SUBTITLE_CHARACTER_WIDTH * len(subtitle)
    )
    width = max(2 * _MARGIN + title_width, *(layout.compute_band_width(band) for band in bands))
    height = _TITLE_HEIGHT + sum(layout.compute_band_height(band) for band in bands)
    # Half a dot is added because matplotlib rounds down.
    canvas = Canvas((width + 0.5) / _DPI, (height + 0.5) / _DPI, _DPI)
    _add_text(canvas, _MARGIN, _MARGIN + 8, title, fontsize=13, fontweight="bold")
    _add_text(canvas, _MARGIN, _MARGIN + 28, subtitle, fontsize=9, color=_GREY)
    top = _TITLE_HEIGHT
    for band in bands:
        _add_band(canvas, layout, band, top)
        top += layout.compute_band_height(band)
    canvas.save(path)


class _Layout:
    """Positions and sizes of the parts of a band, a horizontal strip of the plot, in dots.

    Attributes:
        row_names: Names of the rows.
        scale: Dots per image pixel.
        image_size: Height and width of a drawn image.
        left: Left edge of the first column.
    """

    def __init__(self, row_names: Sequence[str], pixel_count: int) -> None:
        """Choose the scale of the images and the width of the row names.

        Args:
            row_names: Names of the rows.
            pixel_count: Height and width of the images, in pixels.
        """
        self.row_names = row_names
        self.scale = math.ceil(_MIN_IMAGE_SIZE / pixel_count)
        self.image_size = self.scale * pixel_count
        self.left = _MARGIN + _NAME_CHARACTER_WIDTH * max(map(len, row_names)) + _GAP

    def compute_band_width(self, band: Band) -> int:
        """Return the width of a band in dots, including the row names and the margins."""
        column_count = sum(len(group.columns) for group in band)
        inner_gap_count = column_count - len(band)
        gaps = _GAP * inner_gap_count + _GROUP_GAP * (len(band) - 1)
        return self.left + column_count * self.image_size + gaps + _MARGIN

    def compute_band_height(self, band: Band) -> int:
        """Return the height of a band in dots, including its headings and the lower margin."""
        rows_height = len(self.row_names) * self.compute_row_step(band) - _GAP
        return self.compute_images_top(band) + rows_height + _MARGIN

    def compute_images_top(self, band: Band) -> int:
        """Return the distance from the top of a band to its first row of images, in dots."""
        has_labels = any(column.label for group in band for column in group.columns)
        return _HEADER_HEIGHT + (_LABEL_HEIGHT if has_labels else 0)

    def compute_row_step(self, band: Band) -> int:
        """Return the distance between the tops of two adjacent rows of a band, in dots."""
        has_captions = any(column.captions for group in band for column in group.columns)
        return self.image_size + (_CAPTION_HEIGHT if has_captions else 0) + _GAP


def _add_band(canvas: Canvas, layout: _Layout, band: Band, top: int) -> None:
    """Draw a band (horizontal strip) of the plot: row names, then the groups side by side.

    Args:
        canvas: Canvas to draw on.
        layout: Row names, and positions in the band.
        band: Groups of columns to draw.
        top: Upper edge of the band, in dots.
    """
    image_tops = [
        top + layout.compute_images_top(band) + row * layout.compute_row_step(band)
        for row in range(len(layout.row_names))
    ]
    for name, image_top in zip(layout.row_names, image_tops, strict=True):
        middle = image_top + layout.image_size / 2
        _add_text(canvas, layout.left - _GAP, middle, name, ha="right", va="center", fontsize=11)
    left = layout.left
    for group in band:
        _add_text(canvas, left, top + 14, group.title, fontsize=11, fontweight="bold")
        _add_text(canvas, left, top + 32, group.range, fontsize=9, color=_GREY)
        for column in group.columns:
            _add_column(canvas, layout, column, left, image_tops)
            left += layout.image_size + _GAP
        left += _GROUP_GAP - _GAP


def _add_column(
    canvas: Canvas, layout: _Layout, column: ExampleColumn, left: int, image_tops: Sequence[int]
) -> None:
    """Draw the images of a column, with the label above and the captions below.

    Args:
        canvas: Canvas to draw on.
        layout: Size and scale of the images.
        column: Column to draw.
        left: Left edge of the column, in dots.
        image_tops: Upper edge of each image, in dots.
    """
    middle = left + layout.image_size / 2
    _add_text(canvas, middle, image_tops[0] - 8, column.label, ha="center", fontsize=9)
    for image, top in zip(column.images, image_tops, strict=True):
        canvas.add_scaled_image(np.rint(image).astype(np.uint8), left, top, layout.scale)
    if column.captions:
        for caption, top in zip(column.captions, image_tops, strict=True):
            below = top + layout.image_size + 3
            _add_text(canvas, middle, below, caption, ha="center", va="top", fontsize=8)


def _add_text(canvas: Canvas, x: float, y: float, text: str, **text_options: Any) -> None:
    """Draw text at the position (x, y), which by default is the left end of its baseline.

    Args:
        canvas: Canvas to draw on.
        x: Horizontal position in dots.
        y: Vertical position in dots, from the top.
        text: Text to draw.
        text_options: Options of matplotlib's `Axes.text`.
    """
    canvas.add_text(x / _DPI, y / _DPI, text, **text_options)
