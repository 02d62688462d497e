"""What the pictures of an evaluation have in common: their titles, their colours, their files."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # without pyplot: no global state, no display is asked for
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from fer_pipeline.io import storage

# Of a palette that the colour-blind can tell apart (Okabe and Ito, 2008).
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"

_DPI = 120
_CHARACTERS_PER_INCH = 9  # of a title


def add_title(figure: Figure, *lines: str, **place: Any) -> None:
    """Writes lines above a figure, wrapped to its width.

    Args:
        figure: The figure.
        lines: What it shows.
        place: Where, as in `Figure.suptitle`; by default the layout finds it.
    """
    columns = int(figure.get_figwidth() * _CHARACTERS_PER_INCH)
    figure.suptitle(
        "\n".join(textwrap.fill(line, columns) for line in lines),
        fontsize=11,
        # A folder's name may hold a "$", which is no formula.
        parse_math=False,
        **place,
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    with storage.atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)


class Canvas:
    """A figure that is laid out in inches, x to the right and y down from its upper left corner.

    Many small images in one system of coordinates are drawn in a tenth of the time that as many
    axes take.
    """

    def __init__(self, width: float, height: float) -> None:
        """Begins an empty sheet of this size."""
        self.figure = Figure(figsize=(width, height))
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.set_axis_off()

    def title(self, *lines: str) -> None:
        """Writes lines at the top, about 0.7 inches for two of them."""
        add_title(self.figure, *lines, y=1 - 0.15 / self.figure.get_figheight(), va="top")

    def image(
        self,
        values: npt.NDArray[np.generic],
        x: float,
        y: float,
        width: float,
        height: float | None = None,
        **look: Any,
    ) -> AxesImage:
        """Draws an array with its upper left corner at (x, y); a square one by default."""
        height = width if height is None else height
        # The limits stay: an image would set them to its own.
        limits = self.axes.get_xlim(), self.axes.get_ylim()
        drawn = self.axes.imshow(
            values,
            extent=(x, x + width, y + height, y),
            aspect="auto",
            **{"cmap": "gray", "interpolation": "nearest", **look},
        )
        self.axes.set(xlim=limits[0], ylim=limits[1])
        return drawn

    def face(self, pixels: npt.NDArray[np.uint8], x: float, y: float, side: float) -> None:
        """Draws a grey image; black is 0 and white is 255 in every one."""
        self.image(pixels, x, y, side, vmin=0, vmax=255)

    def frame(self, x: float, y: float, side: float, colour: str) -> None:
        """Draws a frame around an image."""
        self.axes.add_patch(
            Rectangle((x, y), side, side, fill=False, edgecolor=colour, linewidth=2.5)
        )

    def text(self, x: float, y: float, text: str, **look: Any) -> None:
        """Writes text, by default small and on a line that begins at (x, y)."""
        self.axes.text(x, y, text, **{"fontsize": 8, "parse_math": False, **look})
