"""Figure kit of all plots: colours, titles, axes, PNG files, and a canvas laid out in inches."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure  # without pyplot: no global state, no display needed
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_pipeline.io import storage

# Palette for readers with colour blindness: Okabe and Ito, 2008.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
SKY_BLUE = "#56B4E9"
BLACK = "#000000"
GREY = "#7F7F7F"

TEXT_GREY = "#444444"
"""Colour of secondary text."""

_GRID_GREY = "#dddddd"
_DPI = 120  # dots per inch
_TITLE_CHARACTERS_PER_INCH = 9


def add_title(figure: Figure, *lines: str, **position: Any) -> None:
    """Write lines above a figure, wrapped to its width.

    Args:
        figure: Figure to write on.
        lines: Lines of the title.
        position: Position as for `Figure.suptitle`; chosen by the layout by default.
    """
    columns = int(figure.get_figwidth() * _TITLE_CHARACTERS_PER_INCH)
    figure.suptitle(
        "\n".join(textwrap.fill(line, columns) for line in lines),
        fontsize=11,
        # The name of a folder may contain "$", which does not begin a formula.
        parse_math=False,
        **position,
    )


def save_figure(figure: Figure, path: Path, dpi: int = _DPI) -> None:
    """Write a figure as PNG.

    Args:
        figure: Figure to write.
        path: Path of the PNG.
        dpi: Resolution, in dots per inch.

    Raises:
        StorageError: The file cannot be written.
    """
    with storage.atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


def style_axes(*all_axes: Axes, grid: Literal["both", "y"] = "both") -> None:
    """Remove the upper and right border of axes, and draw a light grid behind the data."""
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, axis=grid, color=_GRID_GREY, linewidth=0.8)
        axes.set_axisbelow(True)


def format_counts(axis: Axis, max_ticks: int = 10) -> None:
    """Label an axis with whole numbers that have thousands separators."""
    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=max_ticks))
    axis.set_major_formatter("{x:,.0f}")


def format_percentages(*all_axis: Axis) -> None:
    """Label the fractions of axes as percentages."""
    for axis in all_axis:
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))


class Canvas:
    """Figure laid out in inches: x to the right and y down from the upper left corner.

    Many small images in one coordinate system take a tenth of the time of one pair of axes per
    image.
    """

    def __init__(self, width: float, height: float, dpi: int = _DPI) -> None:
        """Create an empty canvas.

        Args:
            width: Width in inches.
            height: Height in inches.
            dpi: Resolution, in dots per inch.
        """
        self._dpi = dpi
        self._height = height
        self._figure = Figure(figsize=(width, height), dpi=dpi)
        self._axes: Axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set(xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()

    def add_title(self, *lines: str) -> None:
        """Write lines at the top; two lines take about 0.7 inches."""
        add_title(self._figure, *lines, y=1 - 0.15 / self._height, va="top")

    def add_array(
        self,
        array: npt.NDArray[np.generic],
        x: float,
        y: float,
        width: float,
        height: float | None = None,
        **image_options: Any,
    ) -> None:
        """Draw an array with its upper left corner at (x, y).

        Args:
            array: Array of shape (rows, columns).
            x: Left edge in inches.
            y: Upper edge in inches.
            width: Width in inches.
            height: Height in inches; None for a square.
            image_options: Options of `Axes.imshow`.
        """
        height = width if height is None else height
        # imshow would set the limits to those of the image.
        xlim, ylim = self._axes.get_xlim(), self._axes.get_ylim()
        self._axes.imshow(
            array,
            extent=(x, x + width, y + height, y),
            aspect="auto",
            **{"cmap": "gray", "interpolation": "nearest", **image_options},
        )
        self._axes.set(xlim=xlim, ylim=ylim)

    def add_image(self, pixels: npt.NDArray[np.uint8], x: float, y: float, side: float) -> None:
        """Draw a grey square image; 0 is black and 255 is white in each image."""
        self.add_array(pixels, x, y, side, vmin=0, vmax=255)

    def add_scaled_image(self, pixels: npt.NDArray[np.uint8], x: int, y: int, scale: int) -> None:
        """Draw a grey image so that each of its pixels covers exactly `scale` x `scale` dots.

        Args:
            pixels: Grey image.
            x: Left edge in dots.
            y: Upper edge in dots.
            scale: Dots per pixel.
        """
        enlarged = np.kron(pixels, np.ones((scale, scale), np.uint8))
        offset = int(self._height * self._dpi) - y - len(enlarged)
        # As red, green and blue: a colour map would change some values by one.
        rgb = np.stack([enlarged] * 3, axis=-1)
        self._figure.figimage(rgb, xo=x, yo=offset, origin="upper")

    def add_frame(self, x: float, y: float, side: float, color: str) -> None:
        """Draw a frame around a square image."""
        self._axes.add_patch(
            Rectangle((x, y), side, side, fill=False, edgecolor=color, linewidth=2.5)
        )

    def add_text(self, x: float, y: float, text: str, **text_options: Any) -> None:
        """Write text whose baseline begins at (x, y); small by default."""
        self._axes.text(x, y, text, **{"fontsize": 8, "parse_math": False, **text_options})

    def save(self, path: Path) -> None:
        """Write the canvas as PNG.

        Raises:
            StorageError: The file cannot be written.
        """
        save_figure(self._figure, path, self._dpi)
