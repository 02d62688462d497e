"""Common style of all plots: colours, titles, axes, PNG files, and a canvas in inches."""

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

# Colour-blind safe palette of Okabe and Ito, 2008.
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
    """Add a title above a figure; long lines are wrapped to the width of the figure.

    Args:
        figure: Figure to add the title to.
        lines: Lines of the title.
        position: Position options of `Figure.suptitle`. By default the figure's layout chooses the
            position.
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
    """Save a figure as a PNG file.

    Args:
        figure: Figure to save.
        path: Path of the PNG file.
        dpi: Resolution, in dots per inch.

    Raises:
        StorageError: The file cannot be written.
    """
    with storage.atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


def style_axes(*all_axes: Axes, grid: Literal["both", "y"] = "both") -> None:
    """Remove the upper and right border of axes, and draw a light grid behind the data.

    Args:
        all_axes: Axes to change.
        grid: Grid lines to draw: all lines, or only the horizontal lines ("y").
    """
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, axis=grid, color=_GRID_GREY, linewidth=0.8)
        axes.set_axisbelow(True)


def format_count_axis(axis: Axis, max_intervals: int = 10) -> None:
    """Label the ticks of an axis with integers with thousands separators.

    Args:
        axis: Axis to change.
        max_intervals: Maximum number of intervals between the ticks.
    """
    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=max_intervals))
    axis.set_major_formatter("{x:,.0f}")


def format_percentage_axes(*axis_list: Axis) -> None:
    """Label the ticks of axes as percentages; 1 is 100 %."""
    for axis in axis_list:
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))


class Canvas:
    """Figure with positions in inches; x goes right and y goes down from the upper left corner.

    All images share a single pair of axes. This takes a tenth of the time of separate axes for each
    of many small images.
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
        """Add a title at the top of the canvas; two lines are about 0.7 inches high."""
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
        """Draw an array as an image, by default grey, with its upper left corner at (x, y).

        Args:
            array: Array of shape (rows, columns).
            x: Left edge in inches.
            y: Upper edge in inches.
            width: Width in inches.
            height: Height in inches; None for a square.
            image_options: Options of `Axes.imshow`.
        """
        height = width if height is None else height
        # imshow sets the limits of the axes to those of the image.
        xlim, ylim = self._axes.get_xlim(), self._axes.get_ylim()
        self._axes.imshow(
            array,
            extent=(x, x + width, y + height, y),
            aspect="auto",
            **{"cmap": "gray", "interpolation": "nearest", **image_options},
        )
        self._axes.set(xlim=xlim, ylim=ylim)

    def add_image(self, pixels: npt.NDArray[np.uint8], x: float, y: float, size: float) -> None:
        """Draw a square grey image; 0 is black and 255 is white.

        Args:
            pixels: Grey values, uint8 of shape (rows, columns).
            x: Left edge in inches.
            y: Upper edge in inches.
            size: Height and width in inches.
        """
        self.add_array(pixels, x, y, size, vmin=0, vmax=255)

    def add_scaled_image(self, pixels: npt.NDArray[np.uint8], x: int, y: int, scale: int) -> None:
        """Draw a grey image with exactly `scale` x `scale` dots per pixel.

        Args:
            pixels: Grey values, uint8 of shape (rows, columns).
            x: Left edge in dots.
            y: Upper edge in dots.
            scale: Dots per pixel in each direction.
        """
        enlarged = np.kron(pixels, np.ones((scale, scale), np.uint8))
        offset = int(self._height * self._dpi) - y - len(enlarged)
        # RGB, because a colour map would change some grey values by one.
        rgb = np.stack([enlarged] * 3, axis=-1)
        self._figure.figimage(rgb, xo=x, yo=offset, origin="upper")

    def add_frame(self, x: float, y: float, size: float, color: str) -> None:
        """Draw a frame around a square image.

        Args:
            x: Left edge in inches.
            y: Upper edge in inches.
            size: Height and width in inches.
            color: Colour of the frame.
        """
        self._axes.add_patch(
            Rectangle((x, y), size, size, fill=False, edgecolor=color, linewidth=2.5)
        )

    def add_text(self, x: float, y: float, text: str, **text_options: Any) -> None:
        """Draw text at (x, y), which by default is the left end of its baseline.

        Args:
            x: Horizontal position in inches.
            y: Vertical position in inches.
            text: Text to draw; "$" has no special meaning.
            text_options: Options of `Axes.text`; the default font size is 8.
        """
        self._axes.text(x, y, text, **{"fontsize": 8, "parse_math": False, **text_options})

    def save(self, path: Path) -> None:
        """Save the canvas as a PNG file.

        Args:
            path: Path of the PNG file.

        Raises:
            StorageError: The file cannot be written.
        """
        save_figure(self._figure, path, self._dpi)
