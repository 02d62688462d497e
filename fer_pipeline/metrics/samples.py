"""The few images of an evaluation that its pictures show, chosen while all of them pass by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.data import schema
from fer_pipeline.metrics import inputs

MAX_IMAGES = 25
"""How many images a picture of examples or of mistakes holds at most: reference system E's 5x5."""


@dataclass(frozen=True)
class EvaluatedImages:
    """Images with what is true of them and what a model says, as arrays of one length n.

    Attributes:
        row: int64, the 0-based number in the split, in the order in which its rows are stored.
        pixels: uint8 of shape (n, size, size).
        label: The true class.
        probabilities: The model's, of shape (n, classes).
        source: The file that the image came from.
        record: int64, its 0-based number there.
        variant: See `augmentation.Variant`.
    """

    row: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]
    label: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float32]
    source: npt.NDArray[Any]
    record: npt.NDArray[np.int64]
    variant: npt.NDArray[Any]

    @classmethod
    def of_batch(
        cls,
        first: int,
        pixels: npt.NDArray[np.uint8],
        probabilities: npt.NDArray[np.float32],
        columns: Mapping[str, npt.NDArray[Any]],
    ) -> EvaluatedImages:
        """Those of a batch, which begins at row `first` of the split."""
        row = np.arange(first, first + len(pixels), dtype=np.int64)
        origin = {name: columns[name] for name in ("source", "record", "variant")}
        return cls(row, pixels, columns[schema.LABEL], probabilities, **origin)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.row)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The predicted classes."""
        return inputs.predicted_classes(self.probabilities)

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """The probabilities of the predicted classes."""
        return self.probabilities.max(axis=1)

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """Which images are taken for what they are not."""
        return self.predicted != self.label

    def take(self, index: npt.NDArray[Any]) -> EvaluatedImages:
        """Those at these positions, or where a mask is true; copies, so that no batch is kept."""
        return EvaluatedImages(
            *(getattr(self, field.name)[index] for field in dataclasses.fields(self))
        )

    def joined(self, other: EvaluatedImages) -> EvaluatedImages:
        """These and then the others."""
        return EvaluatedImages(
            *(
                np.concatenate([getattr(self, field.name), getattr(other, field.name)])
                for field in dataclasses.fields(self)
            )
        )


class TopK:
    """The images with the highest scores of all that are offered, the first of equal ones."""

    def __init__(self, count: int) -> None:
        """Takes how many are kept."""
        self._count = count
        self._scores = np.empty(0)
        self._faces: EvaluatedImages | None = None

    def offer(self, faces: EvaluatedImages, scores: npt.NDArray[Any]) -> None:
        """Offers images.

        Args:
            faces: The images.
            scores: Theirs; NaN for an image that is not wanted.
        """
        if len(self._scores) == self._count and self._count:
            # One that only equals the last comes too late.
            wanted = scores > self._scores[-1]
        else:
            wanted = ~np.isnan(scores)
        offered = faces.take(wanted)
        if self._faces is not None:
            offered = self._faces.joined(offered)
        known = np.concatenate([self._scores, scores[wanted]])
        order = np.argsort(-known, kind="stable")[: self._count]
        self._scores, self._faces = known[order], offered.take(order)

    @property
    def faces(self) -> EvaluatedImages:
        """The images that are kept, highest score first.

        Raises:
            ValueError: None was ever offered.
        """
        if self._faces is None:
            raise ValueError("no image was offered")
        return self._faces


class SampleSelector:
    """What the pictures of an evaluation show; holds no more images than these.

    Attributes:
        seed: Of the examples.
    """

    def __init__(self, classes: int, seed: int, image: int | None = None) -> None:
        """Begins a gallery.

        Args:
            classes: How many there are.
            seed: Of the examples: with it the same rows are drawn, in whatever batches they come.
            image: The row of the `subject`; None for the image that is recognised with the
                highest probability.
        """
        self.seed = seed
        self._random = np.random.default_rng(seed)
        self._image = image
        self._examples, self._mistakes, self._subject = TopK(MAX_IMAGES), TopK(MAX_IMAGES), TopK(1)
        self._recognised = [TopK(1) for _ in range(classes)]
        self._mistaken = [TopK(1) for _ in range(classes)]

    def offer(self, faces: EvaluatedImages) -> None:
        """Takes what is to be shown of the next rows, which come in their order."""
        wrong, confidence = faces.wrong, faces.confidence.astype(np.float64)
        # Of all rows, those with the highest random numbers: a uniform sample without replacement.
        self._examples.offer(faces, self._random.random(len(faces)))
        self._mistakes.offer(faces, np.where(wrong, confidence, np.nan))
        for label, (recognised, mistaken) in enumerate(
            zip(self._recognised, self._mistaken, strict=True)
        ):
            here = faces.label == label
            recognised.offer(faces, np.where(here & ~wrong, confidence, np.nan))
            mistaken.offer(faces, np.where(here & wrong, confidence, np.nan))
        if self._image is not None:
            self._subject.offer(faces, np.where(faces.row == self._image, 0.0, np.nan))
        else:
            # Any that is recognised comes before any that is not.
            self._subject.offer(faces, confidence + ~wrong)

    @property
    def examples(self) -> EvaluatedImages:
        """Images drawn at random, in the order of their rows."""
        drawn = self._examples.faces
        return drawn.take(np.argsort(drawn.row))

    @property
    def mistakes(self) -> EvaluatedImages:
        """The worst mistakes: the wrong predictions of highest probability, the worst first."""
        return self._mistakes.faces

    @property
    def subject(self) -> EvaluatedImages:
        """The one image through which the layers are looked at."""
        return self._subject.faces

    def recognised(self, label: int) -> EvaluatedImages:
        """The image of a class that is recognised with the highest probability, if one is."""
        return self._recognised[label].faces

    def mistaken(self, label: int) -> EvaluatedImages:
        """The worst mistake of a class, if there is one."""
        return self._mistaken[label].faces
