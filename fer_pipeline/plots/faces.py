"""Pictures of images with what is true of them and what a model says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePath

from fer_pipeline.metrics.samples import MAX_IMAGES, EvaluatedImages
from fer_pipeline.metrics.tables import format_percent
from fer_pipeline.plots.style import VERMILION, Canvas, save_figure

# In inches.
_SIDE, _GAP, _MARGIN, _TITLE, _LINE = 1.5, 0.18, 0.25, 0.75, 0.15
_COLUMNS = math.isqrt(MAX_IMAGES)
_SOURCE_LENGTH = 24  # of characters beside each other under an image


def draw_examples(
    faces: EvaluatedImages, classes: Sequence[str], about: str, seed: int, path: Path
) -> None:
    """Draws a grid of images with predicted and true class, as reference system E does.

    Wrong ones have a frame, a cross and bold text.

    Args:
        faces: At least one.
        classes: The names of the classes.
        about: What was evaluated on what.
        seed: With which the images were drawn.
        path: The PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    wrong = int(faces.is_wrong.sum())
    count = f"{len(faces)} images drawn with seed {seed}: {len(faces) - wrong} ✓, {wrong} ✗"
    sheet = _sheet(len(faces), 2, about, count)
    for place, (label, predicted) in enumerate(zip(faces.label, faces.predicted, strict=True)):
        x, y = _corner(place, 2)
        sheet.face(faces.pixels[place], x, y, _SIDE)
        right = label == predicted
        look = {} if right else {"color": VERMILION, "fontweight": "bold"}
        if not right:
            sheet.frame(x, y, _SIDE, VERMILION)
        given = f"{classes[predicted]} {format_percent(faces.confidence[place])}"
        below = y + _SIDE + _LINE
        sheet.text(x, below, f"{'✓' if right else '✗'} {given}", **look)
        sheet.text(x, below + _LINE, f"true: {classes[label]}", color="#444444")
    save_figure(sheet.figure, path)


def draw_mistakes(faces: EvaluatedImages, classes: Sequence[str], about: str, path: Path) -> None:
    """Draws the worst mistakes, each with where it stands in the sources.

    Args:
        faces: Wrongly predicted ones, in the order in which they are drawn.
        classes: The names of the classes.
        about: What was evaluated on what.
        path: The PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    what = f"the {len(faces)} wrong predictions of highest probability" if len(faces) else "none"
    sheet = _sheet(len(faces), 3, about, f"worst mistakes: {what}")
    for place, (label, predicted) in enumerate(zip(faces.label, faces.predicted, strict=True)):
        x, y = _corner(place, 3)
        sheet.face(faces.pixels[place], x, y, _SIDE)
        given = f"{classes[predicted]} {format_percent(faces.confidence[place])}"
        own = format_percent(faces.probabilities[place, label])
        below = y + _SIDE + _LINE
        sheet.text(x, below, f"✗ {given}", color=VERMILION, fontweight="bold")
        sheet.text(x, below + _LINE, f"true: {classes[label]} {own}")
        origin = _origin(faces, place)
        sheet.text(x, below + 2 * _LINE, origin, color="#444444", fontsize=7)
    save_figure(sheet.figure, path)


def _sheet(count: int, lines: int, *text: str) -> Canvas:
    """A sheet for so many images with so many lines of text below each."""
    rows = math.ceil(count / _COLUMNS)
    width = 2 * _MARGIN + _COLUMNS * (_SIDE + _GAP) - _GAP
    sheet = Canvas(width, _TITLE + rows * _row(lines) + _MARGIN / 2)
    sheet.title(*text)
    return sheet


def _row(lines: int) -> float:
    return _SIDE + lines * _LINE + 0.2


def _corner(place: int, lines: int) -> tuple[float, float]:
    """The upper left corner of an image."""
    row, column = divmod(place, _COLUMNS)
    return _MARGIN + column * (_SIDE + _GAP), _TITLE + row * _row(lines)


def _origin(faces: EvaluatedImages, place: int) -> str:
    """The name of the source and the number of the record there."""
    number = f" record {faces.record[place]}"
    name = PurePath(str(faces.source[place])).name
    space = max(_SOURCE_LENGTH - len(number), 4)
    return (name if len(name) <= space else f"{name[: space - 1]}…") + number
