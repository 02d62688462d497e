"""Draw the pictures of README.md: an annotated photograph, the data flow, and predictions.

    python scripts/draw_pictures.py [FOLDER]    # default: docs/pictures; `make pictures`

The photograph is the picture `astronaut` of scikit-image (NASA, in the public domain), scored with
the bundled model. The predictions are those of the last `make demo`, for synthetic faces.
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import skimage.data
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from fer_pipeline import FaceScorer
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


def draw_predictions(path: Path) -> None:
    """Save the demo's predictions for one test image of each emotion, and a quarantined row.

    The images are those with the lowest record number: they are not selected by the prediction.

    Args:
        path: Path of the PNG file.

    Raises:
        SystemExit: The last demo did not run, or did not use synthetic faces.
    """
    csv = DEMO / "faces.csv"
    predictions_file = DEMO / "evaluation" / "predictions.parquet"
    # FER2013's images must not be published: only the demo without FER2013 writes this CSV file.
    if not (csv.exists() and predictions_file.exists()):
        sys.exit(f"draw_pictures: {DEMO} has no predictions of synthetic faces: run `make demo`")
    predictions = pd.read_parquet(predictions_file).sort_values("record")
    quarantine = pd.read_parquet(DEMO / "dataset" / "quarantine").sort_values("record")
    lines = csv.read_text().splitlines()[1:]
    figure = Figure(figsize=(WIDTH, 5.2), dpi=DPI, layout="constrained")
    all_axes = figure.subplots(4, 4, height_ratios=(2, 1, 2, 1))
    for index, emotion in enumerate(EMOTIONS):
        row, column = divmod(index, 4)
        prediction = predictions[predictions["emotion"] == emotion].iloc[0]
        _draw_image(all_axes[2 * row, column], lines[prediction["record"]], prediction)
        _draw_probabilities(all_axes[2 * row + 1, column], prediction, has_labels=column == 0)
    _draw_quarantined_row(all_axes[2, 3], quarantine.iloc[0])
    all_axes[3, 3].set_axis_off()
    # Without the name of the program, which contains its version.
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def _draw_image(axes: Axes, line: str, prediction: pd.Series) -> None:
    """Draw the image of a CSV row with the predicted and the true emotion as title.

    Args:
        axes: Axes of the image.
        line: Row of the CSV file: emotion, pixels, usage.
        prediction: Row of the predictions.
    """
    pixels = np.array(line.split(",")[1].split(), np.uint8)
    size = math.isqrt(pixels.size)
    axes.imshow(pixels.reshape(size, size), cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.set_title(
        f"{prediction['predicted']} {prediction['confidence']:.0%}\ntrue: {prediction['emotion']}",
        fontsize=8,
        color="black" if prediction["correct"] else VERMILION,
    )


def _draw_probabilities(axes: Axes, prediction: pd.Series, *, has_labels: bool) -> None:
    """Draw the probability of each emotion as a bar; the bar of the true emotion is green.

    Args:
        axes: Axes of the bars.
        prediction: Row of the predictions.
        has_labels: Whether the bars are labelled with the emotions.
    """
    probabilities = [prediction[f"p_{emotion}"] for emotion in EMOTIONS]
    is_true = [emotion == prediction["emotion"] for emotion in EMOTIONS]
    axes.barh(EMOTIONS, probabilities, color=[GREEN if true else "#b0b7bf" for true in is_true])
    axes.set(xlim=(0, 1), xticks=[])
    axes.invert_yaxis()
    axes.tick_params(length=0, labelsize=6.5, labelleft=has_labels)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _draw_quarantined_row(axes: Axes, row: pd.Series) -> None:
    """Write the reason why a row is in the quarantine.

    Args:
        axes: Axes of the text.
        row: Row of the quarantine.
    """
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"record {row['record']}\nin the quarantine", fontsize=8, color=VERMILION)
    text = "\n".join(textwrap.wrap(f"{row['reason']}: {row['detail']}", 18))
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=8)
    axes.set_box_aspect(1)


def draw_photograph(path: Path) -> None:
    """Draw a photograph with its face, the emotion and the probabilities."""
    scored = FaceScorer().score(skimage.data.astronaut())
    # The upper part, which has the same proportions as a screen.
    upper = scored.show().crop((0, 0, 512, 300))
    upper.save(path, quality=88)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the pictures into the folder that the command-line arguments name.

    Args:
        argv: Command-line arguments; `sys.argv[1:]` by default.

    Returns:
        Exit status of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="docs/pictures", type=Path)
    folder = parser.parse_args(argv).folder
    folder.mkdir(parents=True, exist_ok=True)
    draw_photograph(folder / "annotated.jpg")
    draw_data_flow(folder / "data_flow.svg")
    draw_predictions(folder / "predictions.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
