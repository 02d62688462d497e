"""Annotated copies: boxes around the faces, their emotions, and bars of all probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFont

from fer_pipeline.faces import annotation_layout as layout
from fer_pipeline.faces.annotation_layout import Place, Size
from fer_pipeline.faces.clip_types import ColorPixels
from fer_pipeline.faces.emotion_colors import get_color

_MIN_MEAN_SIZE = 480
"""Geometric mean of width and height, in pixels, to which smaller images are enlarged."""

_MIN_WIDTH = 160
"""Width in pixels of a label that can be read. Narrow images are enlarged to it, but by no more
than the number below."""

_MAX_NARROW_SCALE = 4

_FONT_FRACTIONS = 1 / 44, 1 / 20
"""Smallest and largest size of the font, as fractions of the geometric mean of width and height."""

_SMALLEST_FONT = 13.0
"""Smallest size in pixels of a font that can be read well."""

_FACE_FRACTION = 0.1
"""Size of the font as a fraction of the height of the face, between the limits above."""

_BAR_LENGTH = 5.0
"""Length of a full bar, in sizes of the font."""

_LINE_HEIGHT = 1.3
"""Distance of two lines of text, in sizes of the font."""

_MAX_COVERED_FRACTION = 0.45
"""Fraction of a face that its bars may cover if there is no other place for them."""

_PANEL_COLOR = (16, 16, 16, 200)
_BAR_BACKGROUND = (255, 255, 255, 50)
_OUTLINE_COLOR = (0, 0, 0, 150)
_WHITE = (255, 255, 255, 255)
_PALE = (215, 215, 215, 255)
_UNSCORED_COLOR = "#C8C8C8"

_Color = tuple[int, ...]


@dataclass(frozen=True)
class AnnotatedFace:
    """A face to draw.

    Attributes:
        box: Left, top, width and height in pixels, of shape (4,).
        probabilities: Probability of each class, of shape (classes,); None if the face has none,
            for example because its quality is too low.
        note: Text before the emotion, or in its place, such as the number of a track or a reason.
    """

    box: npt.NDArray[np.floating]
    probabilities: npt.NDArray[np.floating] | None
    note: str = ""


def draw_faces(
    pixels: ColorPixels, faces: Sequence[AnnotatedFace], classes: Sequence[str]
) -> ColorPixels:
    """Return a copy of an image with its faces.

    Each face has a box in the colour of its emotion, and a label with the emotion and its
    probability. A panel with bars of all probabilities stands beside, below or above the face where
    it covers no face and no other text. Without such a place it covers the lower part of the face
    if that is large, and is left out otherwise.

    Args:
        pixels: Image, uint8 of shape (height, width, 3), BGR. It is not changed.
        faces: The faces.
        classes: Names of the classes.

    Returns:
        uint8 of shape (height, width, 3), BGR. A small image is enlarged by `find_scale`.
    """
    scale = find_scale(pixels.shape[1], pixels.shape[0])
    if scale > 1:
        size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
    canvas = _Canvas(image, classes)
    placed_faces = []
    for face in faces:
        left, top, width, height = (float(length) * scale for length in face.box)
        placed_faces.append(((left, top, left + width, top + height), face))
    # The largest face comes first, and gets the best place for its texts.
    placed_faces.sort(key=lambda pair: -layout.compute_area(pair[0]))
    canvas.occupied += [place for place, _ in placed_faces]
    for draw in (canvas.draw_box, canvas.draw_label, canvas.draw_bars):
        for place, face in placed_faces:
            draw(place, face)
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])


def find_scale(width: int, height: int) -> int:
    """Return the whole number by which `draw_faces` enlarges an image of this size."""
    narrow_scale = min(_MAX_NARROW_SCALE, math.ceil(_MIN_WIDTH / width))
    return max(1, narrow_scale, round(_MIN_MEAN_SIZE / math.sqrt(width * height)))


class _Canvas:
    """An image on which faces are drawn.

    Attributes:
        occupied: Places of faces and texts, which other texts do not cover.
    """

    def __init__(self, image: Image.Image, classes: Sequence[str]) -> None:
        """Draw on an RGB image, which is changed."""
        self.occupied: list[Place] = []
        self._size: Size = image.size
        self._classes = classes
        # In this mode Pillow mixes colours that are transparent with the image.
        self._draw = ImageDraw.Draw(image, "RGBA")
        mean_size = float(np.sqrt(image.width * image.height))
        self._min_font, self._max_font = (
            max(_SMALLEST_FONT, fraction * mean_size) for fraction in _FONT_FRACTIONS
        )

    def draw_box(self, place: Place, face: AnnotatedFace) -> None:
        """Draw the box of a face."""
        line = max(3, round(self._find_font_size(place) / 6))
        edge = max(1, line // 3)
        radius = min(3 * line, (place[2] - place[0]) / 4, (place[3] - place[1]) / 4)
        outer = (place[0] - edge, place[1] - edge, place[2] + edge, place[3] + edge)
        # A dark line on both sides is a contrast on any background.
        self._draw.rounded_rectangle(outer, radius, outline=_OUTLINE_COLOR, width=line + 2 * edge)
        self._draw.rounded_rectangle(place, radius, outline=self._find_color(face), width=line)

    def draw_label(self, place: Place, face: AnnotatedFace) -> None:
        """Draw the emotion of a face and its probability."""
        text = face.note
        if face.probabilities is not None:
            best = int(np.argmax(face.probabilities))
            text += f" {self._classes[best]} {_format_percent(face.probabilities[best])}"
        text = text.strip()
        if not text:
            return
        size = self._find_font_size(place)
        # Narrow images: the text is scaled to their width.
        size *= min(1, self._size[0] / (_measure(text, size) + size))
        font = _load_font(size)
        label = (font.getlength(text) + size * 0.8, size * 1.45)
        others = [area for area in self.occupied if area != place]
        target = layout.choose_best_place(
            layout.list_label_places(place, label, size / 4), self._size, others
        )
        color = self._find_color(face)
        self._draw.rounded_rectangle(target, size / 4, fill=color, outline=_OUTLINE_COLOR)
        position = (target[0] + size * 0.4, (target[1] + target[3]) / 2)
        self._draw.text(position, text, fill=_choose_text_color(color), font=font, anchor="lm")
        self.occupied.append(target)

    def draw_bars(self, place: Place, face: AnnotatedFace) -> None:
        """Draw the bars of all probabilities of a face, if there is a place for them."""
        if face.probabilities is None:
            return
        largest = self._find_font_size(place)
        for size in dict.fromkeys((largest, (largest + self._min_font) / 2, self._min_font)):
            panel = self._measure_panel(size)
            places = layout.list_panel_places(place, panel, size / 2)
            if target := layout.choose_free_place(places, self._size, self.occupied):
                self._draw_panel(target, size, face.probabilities)
                return
        self._draw_bars_on_face(place, face)

    def _draw_bars_on_face(self, place: Place, face: AnnotatedFace) -> None:
        """Draw the bars of a face where they cover a part of it, if it is large enough."""
        visible = layout.intersect(place, (0, 0, *self._size))
        if visible is None or face.probabilities is None:
            return
        panel = self._measure_panel(self._min_font)
        others = [area for area in self.occupied if area != place]
        target = layout.choose_best_place(
            layout.list_overlapping_places(visible, panel), self._size, [place, *others]
        )
        covers_others = layout.compute_covered_area(target, others) > 0
        if (
            panel[0] * panel[1] <= _MAX_COVERED_FRACTION * layout.compute_area(visible)
            and not covers_others
        ):
            self._draw_panel(target, self._min_font, face.probabilities)

    def _draw_panel(
        self, place: Place, size: float, probabilities: npt.NDArray[np.floating]
    ) -> None:
        """Draw a line for each class: its name, its bar and its percentage."""
        font = _load_font(size)
        best = int(np.argmax(probabilities))
        # The colour of the face shows to which of several faces the panel belongs.
        outline = get_color(self._classes[best], best)
        line = max(1, round(size / 10))
        self._draw.rounded_rectangle(place, size / 3, _PANEL_COLOR, outline, line)
        bar_left = place[0] + size + self._measure_names(size)
        for index, (name, probability) in enumerate(zip(self._classes, probabilities, strict=True)):
            y = place[1] + size * (0.5 + _LINE_HEIGHT * (index + 0.5))
            color = _WHITE if index == best else _PALE
            self._draw.text((place[0] + size / 2, y), name, fill=color, font=font, anchor="lm")
            half = size * 0.36
            bar = (bar_left, y - half, bar_left + _BAR_LENGTH * size, y + half)
            self._draw.rectangle(bar, fill=_BAR_BACKGROUND)
            end = bar_left + _BAR_LENGTH * size * float(np.clip(probability, 0, 1))
            if end - bar_left >= 1:
                self._draw.rectangle((*bar[:2], end, bar[3]), fill=get_color(name, index))
            text = _format_percent(probability)
            self._draw.text((place[2] - size / 2, y), text, fill=color, font=font, anchor="rm")
        self.occupied.append(place)

    def _measure_panel(self, size: float) -> Size:
        """Return the size of the panel with the bars, in pixels."""
        width = self._measure_names(size) + _measure("100 %", size) + (2 + _BAR_LENGTH) * size
        return width, size * (1 + _LINE_HEIGHT * len(self._classes))

    def _measure_names(self, size: float) -> float:
        """Return the width of the longest name of a class, in pixels."""
        return max(_measure(name, size) for name in self._classes)

    def _find_font_size(self, place: Place) -> float:
        """Return the size of the font for a face, in pixels."""
        size = _FACE_FRACTION * (place[3] - place[1])
        return float(np.clip(size, self._min_font, self._max_font))

    def _find_color(self, face: AnnotatedFace) -> str:
        """Return the colour of the emotion of a face."""
        if face.probabilities is None:
            return _UNSCORED_COLOR
        best = int(np.argmax(face.probabilities))
        return get_color(self._classes[best], best)


@lru_cache(maxsize=64)
def _load_font(size: float) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font, whose letters are those of European languages."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType")
    return font


def _measure(text: str, size: float) -> float:
    """Return the width of a text in pixels."""
    return _load_font(size).getlength(text)


def _format_percent(probability: float | np.floating) -> str:
    """Return a probability as a whole percentage."""
    return f"{100 * float(probability):.0f} %"


def _choose_text_color(background: str) -> _Color:
    """Return black or white, whichever has the higher contrast (WCAG 2.2, relative luminance)."""
    channels = np.array(ImageColor.getrgb(background)[:3]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    # Both contrasts are equal at sqrt(1.05 * 0.05) - 0.05.
    return _WHITE if luminance < 0.179 else (0, 0, 0, 255)
