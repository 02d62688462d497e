"""Draw the packages of fer_pipeline and their layers as docs/pictures/packages.svg.

    python scripts/draw_architecture.py [FOLDER]    # default: docs/pictures; `make pictures`

The layers are those of the import contracts in pyproject.toml.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from fer_pipeline.plots.style import BLUE, ORANGE, TEXT_GREY

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"

DESCRIPTIONS = {
    "console": "the command fer-pipeline",
    "jobs": "the command line of each job",
    "pipelines": "one function for each job",
    "api": "datasets in Python",
    "face_scorer": "photographs in Python",
    "spark": "distributed jobs",
    "learning": "networks",
    "plots": "all plots (matplotlib)",
    "metrics": "all numbers of an evaluation",
    "cli": "options, errors",
    "config": "the YAML configuration",
    "faces": "faces in photographs and clips",
    "data": "images, labels, splits, stored datasets (NumPy)",
    "io": "paths, files, output folders",
    "extras": "optional packages",
    "errors": "what a user can cause",
    "text": "formats of messages",
    "training": "loop, recipes",
    "export": "LiteRT",
    "inference": "trained models",
    "analysis": "layers, costs",
    "input": "batches",
    "networks": "Keras models",
}
"""Short description of each package and module in the picture."""

HIDDEN = {"__main__", "types"}
"""Modules that the picture leaves out."""

COLORS = {"spark": BLUE, "learning": ORANGE}
"""Colours of the two packages that need a framework; the others are grey."""

# Sizes in inches.
WIDTH = 7.4
LEFT_WIDTH = 4.7
GAP = 0.1
BOX_HEIGHT = 0.52
ROW_HEIGHT = BOX_HEIGHT + GAP


class Box(NamedTuple):
    """Rectangle of a package, in inches.

    Attributes:
        x: Left edge.
        y: Lower edge.
        width: Width.
    """

    x: float
    y: float
    width: float


def read_layers(container: str) -> list[list[str]]:
    """Return the layers of a package from top to bottom, each as a list of modules.

    Args:
        container: Package that contains the layers, such as `fer_pipeline`.
    """
    settings = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = (
        contract for contract in settings["contracts"] if contract.get("containers") == [container]
    )
    layers = [re.findall(r"\w+", layer) for layer in contract["layers"]]
    visible = [[name for name in layer if name not in HIDDEN] for layer in layers]
    return [layer for layer in visible if layer]


def draw_packages(path: Path) -> None:
    """Save the packages and their layers as an SVG file."""
    layers, inner_layers = read_layers("fer_pipeline"), read_layers("fer_pipeline.learning")
    height = len(layers) * ROW_HEIGHT + GAP
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.set_axis_off()
    top = height - GAP
    _draw_layers(axes, layers, Box(GAP, top, LEFT_WIDTH))
    row = next(index for index, layer in enumerate(layers) if "learning" in layer)
    learning_middle = top - row * ROW_HEIGHT - BOX_HEIGHT / 2
    x = GAP + LEFT_WIDTH + 0.35
    inner_top = learning_middle + BOX_HEIGHT / 2
    _draw_panel(
        axes, Box(x - GAP, inner_top - len(inner_layers) * ROW_HEIGHT, WIDTH - x), inner_top
    )
    axes.plot([GAP + LEFT_WIDTH, x - GAP], [learning_middle] * 2, color=ORANGE, linewidth=1.5)
    _draw_layers(axes, inner_layers, Box(x, inner_top, WIDTH - x - 2 * GAP))
    axes.text(
        x - GAP,
        height - GAP,
        "Each package imports only\nfrom the layers below it.\n\nBlue: Spark\nOrange: TensorFlow",
        va="top",
        fontsize=9,
        color=TEXT_GREY,
        linespacing=1.4,
    )
    # The same file for the same drawing: no date, no random names.
    with matplotlib.rc_context({"svg.hashsalt": "fer_pipeline"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_panel(axes: Axes, box: Box, top: float) -> None:
    """Draw the frame around the layers of `learning`."""
    axes.add_patch(
        FancyBboxPatch(
            (box.x, box.y),
            box.width,
            top - box.y + GAP,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor="none",
            edgecolor=ORANGE,
            linewidth=1.5,
        )
    )


def _draw_layers(axes: Axes, layers: list[list[str]], area: Box) -> None:
    """Draw layers from top to bottom.

    Args:
        axes: Axes in inches.
        layers: Modules of each layer.
        area: Left edge, upper edge and width of the layers.
    """
    for row, names in enumerate(layers):
        width = (area.width - (len(names) - 1) * GAP) / len(names)
        y = area.y - row * ROW_HEIGHT - BOX_HEIGHT
        for column, name in enumerate(names):
            _draw_package(axes, name, Box(area.x + column * (width + GAP), y, width))


def _draw_package(axes: Axes, name: str, box: Box) -> None:
    """Draw a package as a box with its name and its description."""
    color = COLORS.get(name)
    axes.add_patch(
        FancyBboxPatch(
            (box.x, box.y),
            box.width,
            BOX_HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=color or "#f4f6f8",
            edgecolor=color or "#9aa5b1",
            linewidth=1,
        )
    )
    name_color, text_color = {"spark": ("white", "white"), "learning": ("black", "black")}.get(
        name, ("black", TEXT_GREY)
    )
    middle = box.x + box.width / 2
    axes.text(
        middle,
        box.y + 0.35,
        name,
        ha="center",
        va="center_baseline",
        fontsize=10,
        fontweight="bold",
        family="monospace",
        color=name_color,
    )
    axes.text(
        middle,
        box.y + 0.14,
        DESCRIPTIONS[name],
        ha="center",
        va="center_baseline",
        fontsize=8,
        color=text_color,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the picture into the folder that the command-line arguments name.

    Args:
        argv: Command-line arguments; `sys.argv[1:]` by default.

    Returns:
        Exit status of the process.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="docs/pictures", type=Path)
    folder = parser.parse_args(argv).folder
    folder.mkdir(parents=True, exist_ok=True)
    draw_packages(folder / "packages.svg")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
