"""The picture of what augmentation makes of some images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fer_pipeline.io import storage
from fer_pipeline.learning.input.augmentation_examples import ExampleColumn, ExampleGroup, Images

_BESIDE = 10  # so many columns of single operations leave room for others beside them
# In pixels of the picture, so that each pixel of an image is a whole number of them.
_DPI = 100
_CELL, _GAP, _GROUP_GAP, _MARGIN = 80, 6, 24, 20
_TITLE, _HEADER, _LABEL, _CAPTION, _LETTER = 62, 42, 22, 30, 9
_GREY = "#666666"


def free_columns(single: Sequence[ExampleGroup]) -> int:
    """How many columns there is room for below these; 0 where what follows stands beside them."""
    columns = sum(len(group.columns) for group in single)
    return columns if columns > _BESIDE else 0


def draw_augmentation_preview(
    originals: Images,
    rows: Sequence[str],
    single: Sequence[ExampleGroup],
    drawn: Sequence[ExampleGroup],
    title: tuple[str, str],
    path: Path,
) -> None:
    """Draws the originals and what became of them, one row per image.

    Args:
        originals: The images.
        rows: The name beside each.
        single: Each operation by itself.
        drawn: What training draws.
        title: What the picture shows, in two lines.
        path: The PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    first = ExampleGroup("original", "", (ExampleColumn("", originals),))
    bands = [[first, *single, *drawn]]
    if free_columns(single):
        bands = [[first, *single], [first, *drawn]]
    sheet = _Sheet(originals.shape[1], rows)
    for band in bands:
        sheet.add(band)
    sheet.save(title, path)


class _Sheet:
    """A white sheet on which bands are put one below the other; its places count from its top."""

    def __init__(self, size: int, rows: Sequence[str]) -> None:
        self._rows, self._scale = rows, -(-_CELL // size)
        self._cell = self._scale * size
        self._left = _MARGIN + _LETTER * max(map(len, rows)) + _GAP
        self._width, self._height = 0, _TITLE
        self._images: list[tuple[int, int, Images]] = []
        self._texts: list[tuple[float, float, str, dict[str, Any]]] = []

    def add(self, band: Sequence[ExampleGroup]) -> None:
        """Puts groups side by side below what is there."""
        labels = any(column.label for group in band for column in group.columns)
        top = self._height + _HEADER + (_LABEL if labels else 0)
        captions = any(column.captions for group in band for column in group.columns)
        step = self._cell + (_CAPTION if captions else 0) + _GAP
        for row, name in enumerate(self._rows):
            middle = top + row * step + self._cell / 2
            self._write(self._left - _GAP, middle, name, ha="right", va="center", fontsize=11)
        left = self._left
        for group in band:
            self._head(left, group)
            for column in group.columns:
                self._put(left, top, step, column)
                left += self._cell + _GAP
            left += _GROUP_GAP - _GAP
        self._width = max(self._width, left - _GROUP_GAP + _MARGIN)
        self._height = top + len(self._rows) * step - _GAP + _MARGIN

    def _head(self, left: int, group: ExampleGroup) -> None:
        above = self._height
        self._write(left, above + 14, group.title, fontsize=11, fontweight="bold")
        self._write(left, above + 32, group.range, fontsize=9, color=_GREY)

    def _put(self, left: int, top: int, step: int, column: ExampleColumn) -> None:
        middle = left + self._cell / 2
        self._write(middle, top - 8, column.label, ha="center", fontsize=9)
        for row, image in enumerate(column.images):
            self._images.append((left, top + row * step, image))
        for row, caption in enumerate(column.captions):
            below = top + row * step + self._cell + 3
            self._write(middle, below, caption, ha="center", va="top", fontsize=8)

    def _write(self, x: float, y: float, text: str, **look: Any) -> None:
        self._texts.append((x, y, text, look))

    def save(self, title: tuple[str, str], path: Path) -> None:
        """Writes the sheet as PNG."""
        self._write(_MARGIN, _MARGIN + 8, title[0], fontsize=13, fontweight="bold")
        self._write(_MARGIN, _MARGIN + 28, title[1], fontsize=9, color=_GREY)
        # No wider than their letters: 11 and 7 pixels hold any but a few of them.
        width = max(self._width, 2 * _MARGIN + max(11 * len(title[0]), 7 * len(title[1])))
        height = self._height
        canvas = np.full((height, width), 255, np.uint8)
        for left, top, image in self._images:
            large = np.kron(np.rint(image).astype(np.uint8), np.ones((self._scale,) * 2, np.uint8))
            canvas[top : top + self._cell, left : left + self._cell] = large
        # Half a pixel more than a whole number, because matplotlib rounds down.
        inches = ((width + 0.5) / _DPI, (height + 0.5) / _DPI)
        figure = Figure(figsize=inches, dpi=_DPI)
        # As red, green and blue: a colour map would change some pixels by one.
        figure.figimage(np.stack([canvas] * 3, axis=-1), origin="upper")
        for x, y, text, look in self._texts:
            # A folder's name may hold a "$", which is no formula.
            figure.text(x / width, 1 - y / height, text, parse_math=False, **look)
        with storage.atomic_write(path) as temporary:
            figure.savefig(temporary, format="png", dpi=_DPI)
