"""Draw the pictures of README.md: the data flow, and scores of synthetic faces.

    python scripts/draw_pictures.py [FOLDER]    # default: docs/pictures; `make pictures`

The scores are those of the last `make demo`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from fer_pipeline import read_scores
from fer_pipeline.plots.style import BLUE, GREEN, ORANGE, TEXT_GREY, VERMILION

DEMO = Path("artifacts/demo")
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

WIDTH = 7.4  # width of both pictures, in inches
DPI = 150  # resolution of the PNG file, in dots per inch

# Sizes in the data flow, in inches.
HEIGHT = 6.6
JOB_WIDTH = 1.15
JOB_HEIGHT = 0.34
LINE_HEIGHT = 0.21
PADDING = 0.1


class Files(NamedTuple):
    """A box of the data flow that holds files.

    Attributes:
        x: Left edge in inches.
        y: Lower edge in inches.
        width: Width in inches.
        lines: Title, and lines of text below it.
    """

    x: float
    y: float
    width: float
    lines: tuple[str, ...]

    @property
    def height(self) -> float:
        """Height in inches."""
        return len(self.lines) * LINE_HEIGHT + 2 * PADDING

    @property
    def top(self) -> float:
        """Upper edge in inches."""
        return self.y + self.height


class Job(NamedTuple):
    """A job of the data flow.

    Attributes:
        name: Name of the job.
        x: Horizontal centre in inches.
        y: Vertical centre in inches.
        color: Colour of the framework that runs the job.
    """

    name: str
    x: float
    y: float
    color: str


INPUT = Files(0.1, 5.85, 3.5, ("Faces with labels", "fer2013.csv, or folders of images"))
CROPS = Files(3.9, 5.85, 3.4, ("Faces without labels", "a folder of crops, or a CSV file"))
DATASET = Files(
    0.1,
    3.88,
    3.5,
    (
        "Dataset",
        "train, validation, test (Parquet)",
        "quarantine: unreadable rows, reasons",
        "manifest: counts, checksum",
    ),
)
RUN = Files(
    0.5,
    2.12,
    3.1,
    ("Run", "model.keras, history, plots", "checkpoint, until it is complete"),
)
REPORT = Files(0.1, 0.42, 2.15, ("Report", "metrics with intervals", "predictions, plots"))
EXPORT = Files(2.5, 0.42, 2.05, ("Export", "SavedModel, LiteRT", "float32, 8-bit integers"))
SCORES = Files(
    4.8, 0.42, 2.5, ("Scores (Parquet)", "emotion, probabilities,", "reason if unreadable")
)

PREPROCESS = Job("preprocess", 1.85, 5.39, BLUE)
TRAIN = Job("train", 1.85, 3.42, ORANGE)
EVALUATE = Job("evaluate", 1.0, 1.66, ORANGE)
EXPORT_JOB = Job("export", 2.9, 1.66, ORANGE)
SCORE = Job("score", 6.05, 1.66, BLUE)


def draw_data_flow(path: Path) -> None:
    """Save the data flow of the jobs as an SVG file."""
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.set_axis_off()
    connections: tuple[tuple[tuple[float, float], ...], ...] = (
        ((PREPROCESS.x, INPUT.y), (PREPROCESS.x, PREPROCESS.y + JOB_HEIGHT / 2)),
        ((PREPROCESS.x, PREPROCESS.y - JOB_HEIGHT / 2), (PREPROCESS.x, DATASET.top)),
        ((TRAIN.x, DATASET.y), (TRAIN.x, TRAIN.y + JOB_HEIGHT / 2)),
        ((TRAIN.x, TRAIN.y - JOB_HEIGHT / 2), (TRAIN.x, RUN.top)),
        ((EVALUATE.x, RUN.y), (EVALUATE.x, EVALUATE.y + JOB_HEIGHT / 2)),
        ((EVALUATE.x, EVALUATE.y - JOB_HEIGHT / 2), (EVALUATE.x, REPORT.top)),
        ((EXPORT_JOB.x, RUN.y), (EXPORT_JOB.x, EXPORT_JOB.y + JOB_HEIGHT / 2)),
        ((EXPORT_JOB.x, EXPORT_JOB.y - JOB_HEIGHT / 2), (EXPORT_JOB.x, EXPORT.top)),
        ((SCORE.x, CROPS.y), (SCORE.x, SCORE.y + JOB_HEIGHT / 2)),
        ((SCORE.x, SCORE.y - JOB_HEIGHT / 2), (SCORE.x, SCORES.top)),
        # The run to score, and the dataset to evaluate.
        ((RUN.x + RUN.width, SCORE.y + 0.8), (5.7, SCORE.y + 0.8), (5.7, SCORE.y + JOB_HEIGHT / 2)),
        ((0.25, DATASET.y), (0.25, EVALUATE.y), (EVALUATE.x - JOB_WIDTH / 2, EVALUATE.y)),
    )
    for points in connections:
        _draw_arrow(axes, points)
    for files in (INPUT, CROPS, DATASET, RUN, REPORT, EXPORT, SCORES):
        _draw_files(axes, files)
    for job in (PREPROCESS, TRAIN, EVALUATE, EXPORT_JOB, SCORE):
        _draw_job(axes, job)
    axes.text(0.1, 0.13, "Jobs:", fontsize=10, color=TEXT_GREY, va="center")
    for x, color, text in ((0.65, BLUE, "on Spark"), (1.75, ORANGE, "in TensorFlow")):
        axes.plot(x, 0.13, marker="s", markersize=8, color=color)
        axes.text(x + 0.15, 0.13, text, fontsize=10, color=TEXT_GREY, va="center")
    # The same file for the same drawing: no date, no random names.
    with matplotlib.rc_context({"svg.hashsalt": "fer_pipeline"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_files(axes: Axes, files: Files) -> None:
    """Draw a box with a bold title and lines of text."""
    axes.add_patch(
        FancyBboxPatch(
            (files.x, files.y),
            files.width,
            files.height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor="#f4f6f8",
            edgecolor="#9aa5b1",
            linewidth=1,
        )
    )
    for index, line in enumerate(files.lines):
        axes.text(
            files.x + PADDING,
            files.top - PADDING - (index + 0.5) * LINE_HEIGHT,
            line,
            va="center_baseline",
            fontsize=11 if index == 0 else 10,
            fontweight="bold" if index == 0 else "normal",
            color="black" if index == 0 else TEXT_GREY,
        )


def _draw_job(axes: Axes, job: Job) -> None:
    """Draw a job as a coloured box with its name."""
    axes.add_patch(
        FancyBboxPatch(
            (job.x - JOB_WIDTH / 2, job.y - JOB_HEIGHT / 2),
            JOB_WIDTH,
            JOB_HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.16",
            facecolor=job.color,
            edgecolor="none",
        )
    )
    axes.text(
        job.x,
        job.y,
        job.name,
        ha="center",
        va="center_baseline",
        fontsize=11,
        fontweight="bold",
        family="monospace",
        color="black" if job.color == ORANGE else "white",
    )


def _draw_arrow(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Draw an arrow along straight lines between points, which are in inches."""
    x, y = np.transpose(points[:-1])
    axes.plot(x, y, color=TEXT_GREY, linewidth=1.3, solid_capstyle="butt")
    axes.annotate(
        "",
        xy=points[-1],
        xytext=points[-2],
        arrowprops={
            "arrowstyle": "-|>",
            "color": TEXT_GREY,
            "linewidth": 1.3,
            "shrinkA": 0,
            "shrinkB": 1,
        },
    )


def draw_scores(path: Path) -> None:
    """Save the scores of the demo for the first crop of each emotion, and for a damaged file.

    Args:
        path: Path of the PNG file.

    Raises:
        SystemExit: There are no scores of the demo's own model.
    """
    # FER2013's images must not be published: only the demo without FER2013 writes this file.
    if not (DEMO / "faces.csv").exists() or not (DEMO / "scores" / "scores.json").exists():
        sys.exit(f"draw_pictures: {DEMO} has no scores of synthetic faces: run `make demo` first")
    rows = {Path(row["source"]).name: row for row in read_scores(DEMO / "scores").to_pylist()}
    files = [min((DEMO / "faces" / emotion).iterdir()) for emotion in EMOTIONS]
    damaged = {name for name, row in rows.items() if row["reason"]}
    files.append(min(path for path in (DEMO / "faces").rglob("*") if path.name in damaged))
    figure = Figure(figsize=(WIDTH, 5.0), dpi=DPI, layout="constrained")
    all_axes = figure.subplots(4, 4, height_ratios=(2.2, 1, 2.2, 1))
    for index, file in enumerate(files):
        row, column = divmod(index, 4)
        _draw_crop(all_axes[2 * row, column], all_axes[2 * row + 1, column], file, rows[file.name])
    figure.savefig(path, format="png", dpi=DPI)


def _draw_crop(image_axes: Axes, bar_axes: Axes, file: Path, score: dict[str, Any]) -> None:
    """Draw a crop with its predicted emotion and the probability of each emotion.

    Args:
        image_axes: Axes of the crop and its title.
        bar_axes: Axes of the probabilities.
        file: File of the crop; its folder is named after the true emotion.
        score: Row of the scores; a reason takes the place of the emotion if the file is damaged.
    """
    bar_axes.set_axis_off()
    image_axes.set(xticks=[], yticks=[])
    truth = file.parent.name
    if score["reason"]:
        image_axes.set_title(f"{file.name}\nno score", fontsize=8, color=VERMILION)
        image_axes.text(
            0.5, 0.5, score["reason"], ha="center", va="center", transform=image_axes.transAxes
        )
        return
    image_axes.imshow(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), cmap="gray", vmin=0, vmax=255)
    is_right = score["emotion"] == truth
    image_axes.set_title(
        f"{score['emotion']} {score['confidence']:.0%}\ntrue: {truth}",
        fontsize=8,
        color="black" if is_right else VERMILION,
    )
    probabilities = [score[f"p_{emotion}"] for emotion in EMOTIONS]
    colors = [GREEN if emotion == truth else "#b0b7bf" for emotion in EMOTIONS]
    bar_axes.barh(EMOTIONS, probabilities, color=colors)
    bar_axes.set(xlim=(0, 1.0))
    bar_axes.invert_yaxis()


def main(argv: Sequence[str] | None = None) -> int:
    """Draw both pictures into the folder that the command-line arguments name.

    Args:
        argv: Command-line arguments; `sys.argv[1:]` by default.

    Returns:
        Exit status of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="docs/pictures", type=Path)
    folder = parser.parse_args(argv).folder
    folder.mkdir(parents=True, exist_ok=True)
    draw_data_flow(folder / "data_flow.svg")
    draw_scores(folder / "scores.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
