"""Synthetic faces with the seven expressions of FER2013, varied in geometry, light and noise."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from fer_pipeline.data.emotions import FER2013 as EMOTIONS

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

_OVERSAMPLE = 4

# Chosen so that a small CNN reaches an accuracy well above chance and well below 100 %.
_INTENSITY_RANGE = (0.25, 1.1)  # intensity of an expression, relative to _EXPRESSIONS
_JITTER = 0.17  # standard deviation of each facial action between faces


class _FacialActions(NamedTuple):
    """The strengths of all facial actions of a face; the defaults are a neutral face."""

    brow_raise: float = 0.0
    brow_slope: float = 0.0  # positive: the inner ends of the brows are pulled down
    brow_arch: float = 0.4
    brow_gap: float = 0.0  # change of the distance between the brows
    furrow: float = 0.0  # vertical creases between the brows
    eye_open: float = 1.0
    squint: float = 0.0  # raised lower lids
    wrinkle: float = 0.0  # wrinkles of the nose
    fold: float = 0.1  # folds from the nose to the mouth
    curve: float = 0.0  # positive: the corners of the mouth are raised
    open: float = 0.0  # opening of the mouth
    width: float = 1.0  # width of the mouth
    teeth: float = 0.0  # visible part of the upper teeth
    lip_raise: float = 0.0  # raised upper lip
    skew: float = 0.0  # asymmetry of the mouth
    lips: float = 1.0  # thickness of the lips


_EXPRESSIONS = (
    _FacialActions(
        -0.8, 1.1, 0.0, -0.7, 1.0, 0.8, 0.3, 0.2, 0.3, -0.35, 0.0, 0.85, 0.0, 0.0, 0.0, 0.4
    ),
    _FacialActions(
        -0.6, 0.5, 0.1, -0.3, 0.2, 0.5, 0.7, 1.1, 1.1, -0.5, 0.2, 0.95, 0.8, 1.1, 0.6, 0.9
    ),
    _FacialActions(
        0.9, -0.7, 0.0, -0.7, 0.5, 1.5, 0.0, 0.0, 0.2, -0.3, 0.45, 1.3, 0.6, 0.0, 0.0, 0.8
    ),
    _FacialActions(0.1, 0.0, 0.6, 0.1, 0.0, 0.7, 0.8, 0.0, 0.9, 1.2, 0.55, 1.4, 1.2, 0.0, 0.0, 0.6),
    _FacialActions(
        0.1, -1.2, 0.0, -0.2, 0.3, 0.7, 0.0, 0.0, 0.3, -1.1, 0.0, 0.9, 0.0, 0.0, 0.0, 1.1
    ),
    _FacialActions(1.3, 0.0, 1.2, 0.1, 0.0, 1.6, 0.0, 0.0, 0.0, 0.0, 1.1, 0.65, 0.1, 0.0, 0.0, 1.0),
    _FacialActions(),
)


class _Canvas:
    """A grey image to draw on in face coordinates, at several times the final resolution.

    In face coordinates the head is about 2 units high and centred on (0, 0), and y points down. The
    face is randomly rotated, scaled and shifted within the image.

    Attributes:
        image: The drawing, uint8 of shape (4 * size, 4 * size).
        unit: Length of one unit of face coordinates, in pixels of the drawing.
    """

    _BITS = 4  # fractional bits of OpenCV's fixed-point coordinates

    def __init__(self, size: int, background: float, rng: np.random.Generator) -> None:
        """Create an empty drawing with a random position of the face.

        Args:
            size: Height and width of the final image, in pixels.
            background: Grey value of the background, in [0, 255].
            rng: Random generator for rotation, scale and shift of the face.
        """
        image_size = size * _OVERSAMPLE
        angle = np.deg2rad(np.clip(rng.normal(0.0, 6.0), -15.0, 15.0))
        self.unit = image_size * 0.5 * rng.uniform(0.9, 1.1)
        self._shift = image_size * (0.5 + rng.uniform(-0.05, 0.05, 2))
        cos, sin = np.cos(angle), np.sin(angle)
        self._rotation = np.array([[cos, sin], [-sin, cos]]) * self.unit
        self.image: Image = np.full((image_size, image_size), background, np.uint8)

    def _to_fixed_point(self, points: Points) -> npt.NDArray[np.int32]:
        """Convert points of shape (n, 2) from face coordinates to fixed-point pixel coordinates.

        In face coordinates the head is about 2 units high and centred on (0, 0), and y points down.
        OpenCV's fixed-point coordinates are integers in units of 1/16 pixel.
        """
        pixels = points @ self._rotation + self._shift
        fixed: npt.NDArray[np.int32] = np.rint(pixels * (1 << self._BITS)).astype(np.int32)
        return fixed

    def fill_polygon(self, x: Points, y: Points, tone: float) -> None:
        """Fill a polygon.

        Args:
            x: Horizontal face coordinates of the corners, float64 of shape (n,).
            y: Vertical face coordinates of the corners, float64 of shape (n,).
            tone: Grey value; clipped to [0, 255].
        """
        points, shade = (
            [self._to_fixed_point(np.stack([x, y], axis=1))],
            (float(np.clip(tone, 0, 255)),),
        )
        cv2.fillPoly(self.image, points, shade, cv2.LINE_AA, self._BITS)

    def draw_line(self, x: Points, y: Points, tone: float, width: float) -> None:
        """Draw an open polygonal line.

        Args:
            x: Horizontal face coordinates of the points, float64 of shape (n,).
            y: Vertical face coordinates of the points, float64 of shape (n,).
            tone: Grey value; clipped to [0, 255].
            width: Width of the line, in units of face coordinates; at least one pixel is drawn.
        """
        points, pixels = [self._to_fixed_point(np.stack([x, y], axis=1))], round(width * self.unit)
        shade = (float(np.clip(tone, 0, 255)),)
        cv2.polylines(self.image, points, False, shade, max(1, pixels), cv2.LINE_AA, self._BITS)


# Parameters of curves: positions from left to right, a parabola over them, and angles of a circle.
_T = np.linspace(-1.0, 1.0, 17)
_BULGE = 1.0 - _T**2
_RING = np.linspace(0.0, 2.0 * np.pi, 33)


def _draw_head(canvas: _Canvas, skin: float, hair: float, rng: np.random.Generator) -> None:
    """Draw hair, ears, neck and the outline of the face; `skin` and `hair` are grey values."""
    wide, long = rng.uniform(0.72, 0.88), rng.uniform(0.95, 1.08)
    jaw = rng.uniform(0.75, 1.05)
    x, y = wide * np.cos(_RING), long * np.sin(_RING)
    length = rng.uniform(-0.1, 0.2) if rng.random() < 0.7 else rng.uniform(0.5, 1.1)
    canvas.fill_polygon(1.13 * x, np.minimum(1.12 * y - 0.1, length), hair)
    for side in (-1.0, 1.0):
        canvas.fill_polygon(
            side * wide + 0.1 * np.cos(_RING), 0.02 + 0.2 * np.sin(_RING), skin * 0.9
        )
    canvas.fill_polygon(0.3 * x, 1.1 + 0.4 * y, skin * 0.8)
    canvas.fill_polygon(np.where(y > 0.0, x * (1.0 - (1.0 - jaw) * y / long), x), y, skin)
    fringe, part = rng.uniform(-0.78, -0.6), rng.uniform(-0.1, 0.1)
    arc = slice(19, 30)  # crown part of the head outline, left temple to right temple
    hairline = fringe + part * _T - 0.12 * _BULGE
    canvas.fill_polygon(
        np.r_[1.1 * x[arc], wide * _T[::-1]], np.r_[1.12 * y[arc], hairline[::-1]], hair
    )


def _draw_eyes(
    canvas: _Canvas, actions: _FacialActions, skin: float, rng: np.random.Generator
) -> None:
    """Draw both eyes with lids and pupils; `skin` is the grey value of the face."""
    spacing, height, half = rng.uniform(0.32, 0.38), rng.uniform(-0.16, -0.08), 0.17
    iris, size = rng.uniform(25, 95), rng.uniform(0.9, 1.15)
    gaze = rng.uniform(-0.05, 0.05)
    lid = max(0.15, actions.eye_open) * 0.105 * size
    for side in (-1.0, 1.0):
        upper = height - lid * _BULGE**0.8
        lower = height + (0.075 * size - 0.06 * actions.squint) * _BULGE
        lower = np.maximum(lower, upper + 0.02)
        x = side * spacing + half * size * _T
        canvas.fill_polygon(
            np.r_[x, x[::-1]], np.r_[upper, lower[::-1]], min(250.0, skin * 0.3 + 180)
        )
        for radius, tone in ((0.085, iris), (0.04, 10.0)):
            pupil_x = side * spacing + gaze + radius * size * np.cos(_RING)
            pupil_y = height - 0.01 + radius * size * np.sin(_RING)
            lids = np.interp(pupil_x, x, upper), np.interp(pupil_x, x, lower)
            canvas.fill_polygon(pupil_x, np.clip(pupil_y, *lids), tone)
        canvas.draw_line(x, upper, skin * 0.25, 0.035)
        canvas.draw_line(x, lower, skin * 0.6, 0.02)
        if actions.squint > 0.3:
            canvas.draw_line(x, lower + 0.07 + 0.02 * _BULGE, skin * 0.78, 0.02)


def _draw_brows(
    canvas: _Canvas, actions: _FacialActions, skin: float, hair: float, thick: float
) -> None:
    """Draw the brows and the creases of the forehead.

    `skin` and `hair` are grey values; `thick` is the thickness of the brows in face coordinates.
    """
    t = np.linspace(0.0, 1.0, 9)  # from the inner end to the outer end
    x = 0.15 + 0.07 * actions.brow_gap + 0.42 * t
    y = -0.35 - 0.12 * actions.brow_raise - 0.1 * actions.brow_arch * 4.0 * t * (1.0 - t)
    y = y + 0.17 * actions.brow_slope * (0.6 - t) + 0.05 * t
    y = np.minimum(y, -0.22)
    for side in (-1.0, 1.0):
        canvas.draw_line(side * x, y, min(hair, skin * 0.6), thick)
        if actions.furrow > 0.3:
            crease = side * (0.07 + np.array([0.0, 0.01]))
            tone = skin * (1.0 - 0.35 * min(actions.furrow, 1.2))
            canvas.draw_line(crease, np.array([-0.42, -0.24]), tone, 0.03)
    if actions.brow_raise > 0.5:
        for level in (-0.66, -0.57):
            canvas.draw_line(0.38 * _T, level - 0.03 * _BULGE, skin * 0.82, 0.02)


def _draw_nose(
    canvas: _Canvas, actions: _FacialActions, skin: float, rng: np.random.Generator
) -> None:
    """Draw the nose with its wrinkles, and the folds from the nose to the mouth.

    `skin` is the grey value of the face.
    """
    lift = 0.06 * actions.wrinkle
    tip, half = rng.uniform(0.22, 0.3) - lift, rng.uniform(0.12, 0.17)
    bridge = np.array([0.03, 0.05, 0.07, half])
    ridge = np.array([-0.15, 0.0, 0.1, tip])
    canvas.draw_line(rng.choice([-1.0, 1.0]) * bridge, ridge, skin * 0.8, 0.03)
    canvas.draw_line(half * _T, tip + 0.05 * _BULGE - 0.02, skin * 0.65, 0.035)
    for side in (-1.0, 1.0):
        canvas.fill_polygon(
            side * 0.07 + 0.03 * np.cos(_RING), tip + 0.02 * np.sin(_RING), skin * 0.35
        )
        if actions.wrinkle > 0.25:
            tone = skin * (1.0 - 0.45 * min(actions.wrinkle, 1.2))
            for level in (-0.12, -0.02, 0.08):
                slant = np.array([level, level + 0.07])
                canvas.draw_line(side * np.array([0.03, 0.14]), slant, tone, 0.03)
        if actions.fold > 0.2:
            tone = skin * (1.0 - 0.35 * min(actions.fold, 1.2))
            reach = np.array([half + 0.03, half + 0.17, half + 0.24 * actions.width])
            canvas.draw_line(
                side * reach, np.array([tip - 0.03, tip + 0.12, tip + 0.3]), tone, 0.03
            )


def _draw_mouth(
    canvas: _Canvas, actions: _FacialActions, skin: float, rng: np.random.Generator
) -> None:
    """Draw lips, opening and teeth of the mouth; `skin` is the grey value of the face."""
    level, thick = rng.uniform(0.55, 0.62), rng.uniform(0.05, 0.075)
    gap = max(0.0, actions.open)
    x = 0.3 * actions.width * rng.uniform(0.92, 1.08) * _T
    # The corners follow the curve; 0.6 is subtracted so that the mouth keeps its height.
    midline = level + 0.2 * actions.curve * (_BULGE - 0.6) + 0.05 * actions.skew * _T
    # A smaller power makes the opening more angular: a wide mouth is a slot, a narrow mouth an O.
    shape = _BULGE ** np.clip(1.6 - actions.width, 0.35, 0.7)
    raised = 0.11 * actions.lip_raise * np.cos(_T * np.pi * 0.7) * (1.0 + 0.5 * actions.skew * _T)
    upper = midline - 0.13 * gap * shape - np.maximum(raised, 0.0) * _BULGE
    lower = np.maximum(midline + 0.2 * gap * shape, upper)
    outline_x = np.r_[x, x[::-1]]
    opening = float((lower - upper).max())
    if opening > 0.05:
        canvas.fill_polygon(outline_x, np.r_[upper, lower[::-1]], rng.uniform(15, 45))
        teeth = upper + np.clip(actions.teeth, 0.0, 1.0) * np.minimum(lower - upper, 0.13)
        canvas.fill_polygon(outline_x, np.r_[upper, teeth[::-1]], 235.0)
    lips = max(0.02, thick * actions.lips)
    canvas.draw_line(x, upper - 0.4 * lips, skin * 0.6, lips)
    canvas.draw_line(x, lower + 0.5 * lips, skin * 0.68, lips)
    if opening <= 0.05:
        canvas.draw_line(x, midline, skin * 0.3, 0.03)
    canvas.draw_line(0.6 * x, lower + 0.14 + 0.02 * _BULGE, skin * 0.85, 0.03)


def _simulate_photo(drawing: Image, size: int, rng: np.random.Generator) -> Image:
    """Shrink a drawing to (size, size), and make it look like a photo.

    Lighting, blur, contrast, brightness and noise are random.

    Returns:
        uint8 of shape (size, size).
    """
    shrunk = cv2.resize(drawing, (size, size), interpolation=cv2.INTER_AREA)
    small: npt.NDArray[np.float32] = shrunk.astype(np.float32)
    angle, strength = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.0, 0.4)
    ramp = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    small *= 1.0 + strength * (np.cos(angle) * ramp[None, :] + np.sin(angle) * ramp[:, None])
    cv2.GaussianBlur(small, (0, 0), rng.uniform(0.3, 0.9) * size / 48.0, dst=small)
    small = (small - 128.0) * rng.uniform(0.7, 1.1) + 128.0 + rng.uniform(-25.0, 25.0)
    small += rng.uniform(2.0, 10.0) * rng.standard_normal(small.shape, dtype=np.float32)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)


def _sample_jitter(rng: np.random.Generator) -> Points:
    """Sample random offsets of all facial actions, independent of the expression.

    Returns:
        One offset for each field of _FacialActions, float64.
    """
    noise = _FacialActions(*rng.normal(0.0, _JITTER, len(_FacialActions._fields)).tolist())
    # A weaker jitter of the opening; otherwise half of the neutral faces would have an open mouth.
    return np.array(noise._replace(open=0.4 * noise.open, skew=0.6 * noise.skew))


def draw_face(code: int, rng: np.random.Generator, size: int = 48) -> Image:
    """Draw one random face that shows an expression.

    Args:
        code: FER2013's code of the emotion, in [0, 6], an index into EMOTIONS.
        rng: Random generator; equal states of the generator give equal images.
        size: Height and width of the image, in pixels; at least 16.

    Returns:
        The grey image, uint8 of shape (size, size).

    Raises:
        ValueError: The code is unknown, or the size is less than 16.
    """
    if not 0 <= code < len(EMOTIONS):
        raise ValueError(f"emotion code must be 0..{len(EMOTIONS) - 1}, got {code}")
    if size < 16:
        raise ValueError(f"size must be at least 16, got {size}")
    neutral = np.array(_FacialActions())
    full = np.array(_EXPRESSIONS[code])
    strengths = neutral + rng.uniform(*_INTENSITY_RANGE) * (full - neutral) + _sample_jitter(rng)
    actions = _FacialActions(*strengths.tolist())
    skin = rng.uniform(110, 215)
    hair = rng.uniform(15, 0.6 * skin)
    canvas = _Canvas(size, rng.uniform(20, 230), rng)
    _draw_head(canvas, skin, hair, rng)
    _draw_nose(canvas, actions, skin, rng)
    _draw_mouth(canvas, actions, skin, rng)
    _draw_eyes(canvas, actions, skin, rng)
    _draw_brows(canvas, actions, skin, hair, rng.uniform(0.06, 0.1))
    return _simulate_photo(canvas.image, size, rng)
