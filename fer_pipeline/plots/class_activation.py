"""A picture of where a network looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.learning.analysis.layer_inspector import LayerInspector
from fer_pipeline.metrics.samples import EvaluatedImages, SampleSelector
from fer_pipeline.metrics.tables import format_percent
from fer_pipeline.plots.style import VERMILION, Canvas, save_figure

_HEADERS = ("recognised", "its evidence", "worst mistake", "for the prediction", "for the truth")
_MISTAKE = 2  # the column in which it stands
# In inches.
_SIDE, _GAP, _BETWEEN = 1.35, 0.1, 0.3  # of images; between the two images of a class
_MARGIN, _NAME, _TITLE, _HEADER, _CAPTION = 0.3, 1.0, 0.7, 0.55, 0.24


@dataclass(frozen=True)
class _Panel:
    """One image in the picture of class activations.

    Attributes:
        row: The class in whose row it stands.
        column: The column.
        face: The image, alone.
        asked: The class whose evidence is drawn over it, None for the image itself.
    """

    row: int
    column: int
    face: EvaluatedImages
    asked: int | None


def draw_class_activation(
    inspection: LayerInspector,
    gallery: SampleSelector,
    classes: Sequence[str],
    about: str,
    path: Path,
) -> None:
    """Draws where the network looks: Grad-CAM over an image, see `Inspection.class_activation`.

    For each class the image that is recognised with the highest probability, with the evidence for
    the class, and the worst mistake, with the evidence for the predicted and for the true class.

    Args:
        inspection: A look into the model; some layer of it gives maps.
        gallery: The images.
        classes: The names of the classes.
        about: What was evaluated on what.
        path: The PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    panels = _panels(gallery, len(classes))
    mapped = [panel for panel in panels if panel.asked is not None]
    maps = inspection.class_activation(
        np.concatenate([panel.face.pixels for panel in mapped]),
        np.array([panel.asked for panel in mapped], np.int32),
    )
    width = _NAME + len(_HEADERS) * (_SIDE + _GAP) + _BETWEEN + 2 * _MARGIN - _GAP
    top = _TITLE + _HEADER
    sheet = Canvas(width, top + len(classes) * (_SIDE + _CAPTION) + 0.1)
    sheet.title(
        about,
        f"class activation (Grad-CAM) on {inspection.cam_layer}",
        "bright: speaks for the class; each map has its own scale",
    )
    for column, header in enumerate(_HEADERS):
        x = _left(column) + _SIDE / 2
        sheet.text(x, top - 0.1, header, ha="center", va="bottom", fontsize=9, fontweight="bold")
    for row, name in enumerate(classes):
        y = top + row * (_SIDE + _CAPTION) + _SIDE / 2
        sheet.text(_MARGIN, y, name, va="center", fontsize=10, fontweight="bold")
        for column in {0, _MISTAKE} - {panel.column for panel in panels if panel.row == row}:
            sheet.text(_left(column), y, "none", va="center", color="#444444")
    found = iter(maps)
    for panel in panels:
        y = top + panel.row * (_SIDE + _CAPTION)
        _panel(sheet, panel, None if panel.asked is None else next(found), classes, y)
    save_figure(sheet.figure, path)


def _panels(gallery: SampleSelector, classes: int) -> list[_Panel]:
    panels = []
    for label in range(classes):
        for first, face in (
            (0, gallery.best_recognised(label)),
            (_MISTAKE, gallery.worst_mistake(label)),
        ):
            if len(face):
                asked = [None, *dict.fromkeys((int(face.predicted[0]), label))]
                panels += [
                    _Panel(label, column, face, one) for column, one in enumerate(asked, first)
                ]
    return panels


def _panel(
    sheet: Canvas,
    panel: _Panel,
    activation: npt.NDArray[np.float32] | None,
    classes: Sequence[str],
    y: float,
) -> None:
    face, x = panel.face, _left(panel.column)
    sheet.face(face.pixels[0], x, y, _SIDE)
    below = y + _SIDE + 0.14
    if activation is None:
        said = f"{classes[face.predicted[0]]} {format_percent(face.confidence[0])}"
        wrong = bool(face.is_wrong[0])
        mark = {"color": VERMILION, "fontweight": "bold"} if wrong else {}
        sheet.text(x, below, f"{'✗' if wrong else '✓'} {said}", **mark)
        return
    largest = float(activation.max())
    name = classes[panel.asked or 0]
    if largest:
        part = activation / largest
        look: dict[str, Any] = {"cmap": "inferno", "interpolation": "bilinear", "alpha": 0.55}
        sheet.image(part, x, y, _SIDE, vmin=0, vmax=1, **look)
    sheet.text(x, below, name if largest else f"{name}: none", color="#444444")


def _left(column: int) -> float:
    return _MARGIN + _NAME + column * (_SIDE + _GAP) + _BETWEEN * (column >= _MISTAKE)
