"""A colour for each emotion, the same in annotated copies and plots."""

from __future__ import annotations

from fer_pipeline.data.emotions import KNOWN

_COLORS = {
    # Colour-blind safe palette of Okabe and Ito, 2008, with a grey and a brown.
    "angry": "#D55E00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "happy": "#E69F00",
    "sad": "#0072B2",
    "surprise": "#56B4E9",
    "neutral": "#8C8C8C",
    "contempt": "#8C564B",
}


def get_color(emotion: str, class_index: int) -> str:
    """Return the colour of an emotion, such as "#D55E00".

    Args:
        emotion: Name of the class.
        class_index: Index of the class, which chooses the colour of an unknown emotion.
    """
    return _COLORS.get(emotion) or _COLORS[KNOWN[class_index % len(KNOWN)]]
