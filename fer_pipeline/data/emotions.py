"""The names of the emotions, and what a file's codes mean."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

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
    """Returns the one name under which an emotion is known here.

    Args:
        name: An emotion in any case, with any space around it, or one of its synonyms
            (anger, happiness, sadness, ...).

    Raises:
        ValueError: The name is none of them; the message offers the nearest.
    """
    word = name.strip().lower()
    word = _SYNONYMS.get(word, word)
    if word in KNOWN:
        return word
    near = difflib.get_close_matches(word, [*KNOWN, *_SYNONYMS], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(KNOWN)}"
    raise ValueError(f"unknown emotion {name!r}: {hint}")


class LabelEncoder:
    """Turns what a source says of an image (a code, a name, a folder) into a class index."""

    def __init__(self, meanings: Mapping[str, str], classes: Sequence[str]) -> None:
        """Takes what names mean.

        Args:
            meanings: The emotion behind each code, by its text; a name is understood without.
            classes: The emotions to keep, in the order of their class indices.
        """
        self._meanings = dict(meanings)
        self._classes = {name: index for index, name in enumerate(classes)}

    def emotion(self, text: str) -> str | None:
        """The emotion that the text means, or None where it means none."""
        text = text.strip()
        if text in self._meanings:
            return self._meanings[text]
        try:
            return canonical_emotion(text)
        except ValueError:
            return None

    def index(self, emotion: str) -> int | None:
        """The class index of a canonical emotion, or None where it is not among the classes."""
        return self._classes.get(emotion)
