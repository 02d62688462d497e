"""The names of the emotions, and the classes that label texts stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fer_pipeline.text import did_you_mean

FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER2013's classes; the position of a name is its code."""

KNOWN = (*FER2013, "contempt")
"""Every emotion that a dataset may hold; contempt is the eighth of FER+ and AffectNet."""

_SYNONYMS = {
    "anger": "angry",
    "disgusted": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "scared": "fear",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "calm": "neutral",
    "contemptuous": "contempt",
}


def canonical_emotion(name: str) -> str:
    """Return the name that the package uses for an emotion.

    Args:
        name: An emotion in any case, with any space around it, or one of its synonyms
            (anger, happiness, sadness, ...).

    Raises:
        ValueError: The name is not known; the message offers the nearest.
    """
    word = name.strip().lower()
    word = _SYNONYMS.get(word, word)
    if word in KNOWN:
        return word
    raise ValueError(f"unknown emotion {name!r}: {did_you_mean(word, [*KNOWN, *_SYNONYMS])}")


class LabelEncoder:
    """Encodes the label texts of a source (a code, a name, a folder) as class indices."""

    def __init__(self, emotion_of_code: Mapping[str, str], classes: Sequence[str]) -> None:
        """Set the codes and classes.

        Args:
            emotion_of_code: Emotion of each code, by its text; names are understood without.
            classes: Emotions to keep, in the order of their class indices.
        """
        self._emotion_of_code = dict(emotion_of_code)
        self._classes = {name: index for index, name in enumerate(classes)}

    def find_emotion(self, text: str) -> str | None:
        """Return the emotion that a label text means, None if it means none."""
        text = text.strip()
        if text in self._emotion_of_code:
            return self._emotion_of_code[text]
        try:
            return canonical_emotion(text)
        except ValueError:
            return None

    def find_class_index(self, emotion: str) -> int | None:
        """Return the class index of a canonical emotion, None if it is not among the classes."""
        return self._classes.get(emotion)
