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
"""Pixel values in 0..255, of shape (rows, size, size)."""

_MAX_COLUMNS_BESIDE = 10
"""Most columns of single operations beside which sampled examples fit in the same band."""

_GREY = "#666666"

# In dots, so that each pixel of an image covers a whole number of them.
_DPI = 100  # dots per inch
_MIN_IMAGE_SIDE = 80
_GAP = 6  # between images
_GROUP_GAP = 24
_MARGIN = 20
_TITLE_HEIGHT = 62
_HEADER_HEIGHT = 42
_LABEL_HEIGHT = 22
_CAPTION_HEIGHT = 30
_NAME_CHARACTER_WIDTH = 9
# No character of the titles is wider, with few exceptions.
_TITLE_CHARACTER_WIDTH = 11
_SUBTITLE_CHARACTER_WIDTH = 7


@dataclass(frozen=True)
class ExampleColumn:
    """One version of each row's image.

    Attributes:
        label: Short description of the change.
        images: The version of each image.
        captions: Text of up to two lines below each image; empty for none.
    """

    label: str
    images: Images
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExampleGroup:
    """Columns under a common heading.

    Attributes:
        title: Name of the operation.
        range: Range of the operation, in words.
        columns: Examples of the operation.
    """

    title: str
    range: str
    columns: tuple[ExampleColumn, ...]


@dataclass(frozen=True)
class AugmentationExamples:
    """Images before and after augmentation.

    Attributes:
        row_names: Name beside each row.
        originals: The image of each row.
        per_operation: Each operation by itself.
        sampled: All operations together, as in training.
    """

    row_names: Sequence[str]
    originals: Images
    per_operation: Sequence[ExampleGroup]
    sampled: Sequence[ExampleGroup]


Band = Sequence[ExampleGroup]
"""Groups side by side."""


def free_columns(per_operation: Sequence[ExampleGroup]) -> int:
    """Return how many columns fit in a band below single operations, 0 without such a band."""
    columns = sum(len(group.columns) for group in per_operation)
    return columns if columns > _MAX_COLUMNS_BESIDE else 0


def draw_augmentation_preview(
    examples: AugmentationExamples, title: str, subtitle: str, path: Path
) -> None:
    """Draw images before and after augmentation, one row per image.

    Args:
        examples: The images.
        title: First line of the title.
        subtitle: Second line of the title.
        path: Path of the PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    originals = ExampleGroup("original", "", (ExampleColumn("", examples.originals),))
    if free_columns(examples.per_operation):
        bands = [[originals, *examples.per_operation], [originals, *examples.sampled]]
    else:
        bands = [[originals, *examples.per_operation, *examples.sampled]]
    layout = _Layout(examples.row_names, examples.originals.shape[1])
    title_width = max(
        _TITLE_CHARACTER_WIDTH * len(title), _SUBTITLE_CHARACTER_WIDTH * len(subtitle)
    )
    width = max(2 * _MARGIN + title_width, *(layout.band_width(band) for band in bands))
    height = _TITLE_HEIGHT + sum(layout.band_height(band) for band in bands)
    # Half a dot more than a whole number, because matplotlib rounds down.
    canvas = Canvas((width + 0.5) / _DPI, (height + 0.5) / _DPI, _DPI)
    _add_text(canvas, _MARGIN, _MARGIN + 8, title, fontsize=13, fontweight="bold")
    _add_text(canvas, _MARGIN, _MARGIN + 28, subtitle, fontsize=9, color=_GREY)
    top = _TITLE_HEIGHT
    for band in bands:
        _add_band(canvas, layout, band, top)
        top += layout.band_height(band)
    canvas.save(path)


class _Layout:
    """Positions of the parts of a band, in dots.

    Attributes:
        row_names: Name beside each row.
        scale: Dots per pixel of an image.
        side: Side of an image on the canvas.
        left: Left edge of the first column.
    """

    def __init__(self, row_names: Sequence[str], image_size: int) -> None:
        self.row_names = row_names
        self.scale = math.ceil(_MIN_IMAGE_SIDE / image_size)
        self.side = self.scale * image_size
        self.left = _MARGIN + _NAME_CHARACTER_WIDTH * max(map(len, row_names)) + _GAP

    def band_width(self, band: Band) -> int:
        columns = sum(len(group.columns) for group in band)
        inner_gaps = columns - len(band)
        gaps = _GAP * inner_gaps + _GROUP_GAP * (len(band) - 1)
        return self.left + columns * self.side + gaps + _MARGIN

    def band_height(self, band: Band) -> int:
        rows_height = len(self.row_names) * self.row_step(band) - _GAP
        return self.images_top(band) + rows_height + _MARGIN

    def images_top(self, band: Band) -> int:
        """Return the distance from the top of a band to its first image."""
        has_labels = any(column.label for group in band for column in group.columns)
        return _HEADER_HEIGHT + (_LABEL_HEIGHT if has_labels else 0)

    def row_step(self, band: Band) -> int:
        """Return the distance between the tops of two rows."""
        has_captions = any(column.captions for group in band for column in group.columns)
        return self.side + (_CAPTION_HEIGHT if has_captions else 0) + _GAP


def _add_band(canvas: Canvas, layout: _Layout, band: Band, top: int) -> None:
    """Draw groups side by side, with the names of the rows on their left."""
    image_tops = [
        top + layout.images_top(band) + row * layout.row_step(band)
        for row in range(len(layout.row_names))
    ]
    for name, image_top in zip(layout.row_names, image_tops, strict=True):
        middle = image_top + layout.side / 2
        _add_text(canvas, layout.left - _GAP, middle, name, ha="right", va="center", fontsize=11)
    left = layout.left
    for group in band:
        _add_text(canvas, left, top + 14, group.title, fontsize=11, fontweight="bold")
        _add_text(canvas, left, top + 32, group.range, fontsize=9, color=_GREY)
        for column in group.columns:
            _add_column(canvas, layout, column, left, image_tops)
            left += layout.side + _GAP
        left += _GROUP_GAP - _GAP


def _add_column(
    canvas: Canvas, layout: _Layout, column: ExampleColumn, left: int, image_tops: Sequence[int]
) -> None:
    """Draw the images of a column with its label above and their captions below."""
    middle = left + layout.side / 2
    _add_text(canvas, middle, image_tops[0] - 8, column.label, ha="center", fontsize=9)
    for image, top in zip(column.images, image_tops, strict=True):
        canvas.add_scaled_image(np.rint(image).astype(np.uint8), left, top, layout.scale)
    if column.captions:
        for caption, top in zip(column.captions, image_tops, strict=True):
            below = top + layout.side + 3
            _add_text(canvas, middle, below, caption, ha="center", va="top", fontsize=8)


def _add_text(canvas: Canvas, x: float, y: float, text: str, **text_options: Any) -> None:
    """Write text at a position in dots."""
    canvas.add_text(x / _DPI, y / _DPI, text, **text_options)
