"""Draw the data flow of the job preprocess as docs/pictures/preprocess.svg.

`make pictures` runs `python scripts/draw_preprocess.py`; a folder as the argument takes the place
of docs/pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from fer_pipeline.plots.style import BLUE, ORANGE, TEXT_GREY

# Sizes in inches.
WIDTH = 7.4
COLUMN_WIDTH = 2.3
COLUMN_DISTANCE = 2.5
BOX_HEIGHT = 0.62
ROW_DISTANCE = 0.86
TOP = 0.45

COLUMNS = ("driver", "Python workers, one per core", "storage")
COLORS = ("#f4f6f8", BLUE, ORANGE)


class Step(NamedTuple):
    """Box of the picture.

    Attributes:
        column: Position in `COLUMNS`.
        row: Row from the top, from 0.
        title: First line.
        text: Second line.
    """

    column: int
    row: int
    title: str
    text: str


STEPS = {
    "inputs": Step(2, 0, "inputs", "CSV, images, archives, URLs"),
    "list": Step(0, 0, "list", "names and sizes, no content"),
    "plan": Step(0, 1, "divide among tasks", "files, members, byte ranges"),
    "read": Step(1, 1, "read", "their files, or parts of files"),
    "decode": Step(1, 2, "parse, or decode", "images in a child process"),
    "label": Step(1, 3, "label, hash, resize", "one outcome for each record"),
    "packs": Step(2, 4, "packs on local disks", "sorted by content of the images"),
    "mark": Step(1, 4, "mark copies", "equal images are in one task"),
    "count": Step(0, 4, "count outcomes", "too many bad records: an error"),
    "write": Step(1, 5, "write", "splits, variants, oversampling"),
    "files": Step(2, 5, "Parquet files", "of the splits, and quarantine"),
    "check": Step(0, 6, "compare the counts", "no record is missing"),
    "manifest": Step(2, 6, "manifest.json", "makes the folder a dataset"),
}

ARROWS = (
    ("inputs", "list"),
    ("list", "plan"),
    ("plan", "read"),
    ("inputs", "read"),
    ("read", "decode"),
    ("decode", "label"),
    ("label", "packs"),
    ("packs", "mark"),
    ("mark", "count"),
    ("count", "write"),
    ("packs", "write"),
    ("write", "files"),
    ("write", "check"),
    ("check", "manifest"),
)


def draw_flow(path: Path) -> None:
    """Save the picture as an SVG file."""
    row_count = 1 + max(step.row for step in STEPS.values())
    height = TOP + row_count * ROW_DISTANCE
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    for column, name in enumerate(COLUMNS):
        axes.text(_find_x(column), 0.25, name, ha="center", fontsize=10, color=TEXT_GREY)
    for start, end in ARROWS:
        _draw_arrow(axes, STEPS[start], STEPS[end])
    for step in STEPS.values():
        _draw_step(axes, step)
    # The same file for the same drawing: no date, no random names.
    with matplotlib.rc_context({"svg.hashsalt": "fer_pipeline"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _find_x(column: int) -> float:
    """Return the middle of a column, in inches."""
    return COLUMN_WIDTH / 2 + 0.05 + column * COLUMN_DISTANCE


def _find_y(row: int) -> float:
    """Return the middle of a row, in inches from the top."""
    return TOP + (row + 0.4) * ROW_DISTANCE


def _draw_step(axes: Axes, step: Step) -> None:
    """Draw a step as a box with two lines of text."""
    x, y = _find_x(step.column), _find_y(step.row)
    axes.add_patch(
        FancyBboxPatch(
            (x - COLUMN_WIDTH / 2, y - BOX_HEIGHT / 2),
            COLUMN_WIDTH,
            BOX_HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=COLORS[step.column],
            edgecolor="#9aa5b1",
        )
    )
    color = "white" if COLORS[step.column] == BLUE else "black"
    axes.text(x, y - 0.12, step.title, ha="center", va="center", fontweight="bold", color=color)
    axes.text(x, y + 0.14, step.text, ha="center", va="center", fontsize=8.5, color=color)


def _draw_arrow(axes: Axes, start: Step, end: Step) -> None:
    """Draw an arrow from the edge of a box to the edge of another one."""
    direction = (end.column > start.column) - (end.column < start.column)
    offset = direction * COLUMN_WIDTH / 2
    if direction:
        tail = (_find_x(start.column) + offset, _find_y(start.row))
        head = (_find_x(end.column) - offset, _find_y(end.row))
    else:
        tail = (_find_x(start.column), _find_y(start.row) + BOX_HEIGHT / 2)
        head = (_find_x(end.column), _find_y(end.row) - BOX_HEIGHT / 2)
    axes.annotate("", xy=head, xytext=tail, arrowprops={"arrowstyle": "-|>", "color": TEXT_GREY})


def main(argv: Sequence[str]) -> None:
    """Draw the picture into the folder that the command-line arguments name."""
    folder = Path(argv[0]) if argv else Path("docs/pictures")
    draw_flow(folder / "preprocess.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
