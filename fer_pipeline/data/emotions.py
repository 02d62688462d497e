"""Names of the emotions, and the conversion of label texts to emotions and class indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fer_pipeline.text import suggest_name

FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The classes of FER2013; the position of a name is its label code."""

KNOWN = (*FER2013, "contempt")
"""All emotions that a dataset may contain. Contempt is the eighth emotion of FER+ and AffectNet."""

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
    """Return the canonical name of an emotion: the name of a class of FER2013, or "contempt".

    Args:
        name: Name of an emotion or one of its synonyms (anger, happiness, sadness, ...). Case and
            surrounding white space are ignored.

    Raises:
        ValueError: The name is unknown; the message suggests the most similar name.
    """
    word = name.strip().lower()
    word = _SYNONYMS.get(word, word)
    if word in KNOWN:
        return word
    raise ValueError(f"unknown emotion {name!r}: {suggest_name(word, [*KNOWN, *_SYNONYMS])}")


class LabelEncoder:
    """Converts the label texts of a source to emotions and class indices.

    A label text is a code, the name of an emotion, or the name of a folder of images.
    """

    def __init__(self, emotion_of_code: Mapping[str, str], classes: Sequence[str]) -> None:
        """Set the meaning of the label codes, and the classes of the dataset.

        Args:
            emotion_of_code: Canonical emotion of each label code, by the text of the code, such as
                "3". Names of emotions need no entry.
            classes: Emotions of the dataset, in the order of their class indices.
        """
        self._emotion_of_code = dict(emotion_of_code)
        self._class_indices = {name: index for index, name in enumerate(classes)}

    def find_emotion(self, text: str) -> str | None:
        """Return the canonical emotion of a label text, which is a code or the name of an emotion.

        Return None if the text is neither.
        """
        text = text.strip()
        if text in self._emotion_of_code:
            return self._emotion_of_code[text]
        try:
            return canonical_emotion(text)
        except ValueError:
            return None

    def find_class_index(self, emotion: str) -> int | None:
        """Return the class index of an emotion; None if the dataset has no such class.

        Args:
            emotion: Canonical name of the emotion: one of `KNOWN`.
        """
        return self._class_indices.get(emotion)
