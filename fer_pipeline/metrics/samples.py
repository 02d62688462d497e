"""Selection of the few images that the plots of an evaluation show, in one pass over all images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.data import schema
from fer_pipeline.metrics import inputs

MAX_IMAGES = 25
"""Most images in a plot of examples or of mistakes: reference system E shows 5 x 5."""


@dataclass(frozen=True)
class EvaluatedImages:
    """Images with their true classes and predictions, as arrays of one length n.

    Attributes:
        row: int64, the 0-based row number in the split, in the stored order.
        pixels: uint8 of shape (n, size, size).
        label: True classes.
        probabilities: Predicted probabilities, of shape (n, classes).
        source: Files that the images came from.
        record: int64, the 0-based record number in the source.
        variant: Values of `variants.Variant`.
    """

    row: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]
    label: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float32]
    source: npt.NDArray[Any]
    record: npt.NDArray[np.int64]
    variant: npt.NDArray[Any]

    @classmethod
    def from_batch(
        cls,
        first_row: int,
        pixels: npt.NDArray[np.uint8],
        probabilities: npt.NDArray[np.float32],
        columns: Mapping[str, npt.NDArray[Any]],
    ) -> EvaluatedImages:
        """Return the images of a batch.

        Args:
            first_row: Row number in the split of the first image.
            pixels: uint8 of shape (n, size, size).
            probabilities: Predicted probabilities, of shape (n, classes).
            columns: Label and origin of each image, by column name.
        """
        row = np.arange(first_row, first_row + len(pixels), dtype=np.int64)
        origin = {name: columns[name] for name in ("source", "record", "variant")}
        return cls(row, pixels, columns[schema.LABEL], probabilities, **origin)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.row)

    @property
    def predicted_label(self) -> npt.NDArray[np.int64]:
        """Predicted classes."""
        return inputs.predict_classes(self.probabilities)

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """Probabilities of the predicted classes."""
        return self.probabilities.max(axis=1)

    @property
    def is_wrong(self) -> npt.NDArray[np.bool_]:
        """Mask of the images that are predicted wrongly."""
        return self.predicted_label != self.label

    def take(self, index: npt.NDArray[Any]) -> EvaluatedImages:
        """Return a copy of some images, which keeps no reference to the batch.

        Args:
            index: Positions, or a mask of shape (n,).
        """
        return EvaluatedImages(
            *(getattr(self, field.name)[index] for field in dataclasses.fields(self))
        )

    def append(self, images: EvaluatedImages) -> EvaluatedImages:
        """Return these images followed by others."""
        return EvaluatedImages(
            *(
                np.concatenate([getattr(self, field.name), getattr(images, field.name)])
                for field in dataclasses.fields(self)
            )
        )


class TopK:
    """The images with the highest scores among all that were added, the first of equal ones."""

    def __init__(self, count: int) -> None:
        """Start without images.

        Args:
            count: Number of images to keep.
        """
        self._count = count
        self._scores = np.empty(0)
        self._images: EvaluatedImages | None = None

    def update(self, images: EvaluatedImages, scores: npt.NDArray[Any]) -> None:
        """Add images and keep those with the highest scores.

        Args:
            images: Images to add.
            scores: Score of each image; NaN excludes an image.
        """
        if len(self._scores) == self._count and self._count:
            # An image that only equals the last one is later, and therefore not kept.
            is_candidate = scores > self._scores[-1]
        else:
            is_candidate = ~np.isnan(scores)
        candidates = images.take(is_candidate)
        if self._images is not None:
            candidates = self._images.append(candidates)
        candidate_scores = np.concatenate([self._scores, scores[is_candidate]])
        order = np.argsort(-candidate_scores, kind="stable")[: self._count]
        self._scores, self._images = candidate_scores[order], candidates.take(order)

    @property
    def images(self) -> EvaluatedImages:
        """The kept images, the highest score first.

        Raises:
            ValueError: No image was ever added.
        """
        if self._images is None:
            raise ValueError("no image was added")
        return self._images


class SampleSelector:
    """Selector of the images in the plots of an evaluation; holds no other images in memory.

    Attributes:
        classes: Names of the classes, in the order of their labels.
        seed: Seed of the random examples.
    """

    def __init__(self, classes: Sequence[str], seed: int, inspected_row: int | None = None) -> None:
        """Start without images.

        Args:
            classes: Names of the classes, in the order of their labels.
            seed: Seed of the random examples. It selects the same rows for any batch size.
            inspected_row: Row of the `inspected_image`; None for the image that is recognised with
                the highest probability.
        """
        self.classes = tuple(classes)
        self.seed = seed
        self._random = np.random.default_rng(seed)
        self._inspected_row = inspected_row
        self._examples = TopK(MAX_IMAGES)
        self._mistakes = TopK(MAX_IMAGES)
        self._inspected = TopK(1)
        self._best_recognitions = [TopK(1) for _ in self.classes]
        self._worst_mistakes = [TopK(1) for _ in self.classes]

    def update(self, images: EvaluatedImages) -> None:
        """Select from the next images, which must come in the order of their rows."""
        is_wrong, confidence = images.is_wrong, images.confidence.astype(np.float64)
        # The rows with the highest random numbers: a uniform sample without replacement.
        self._examples.update(images, self._random.random(len(images)))
        self._mistakes.update(images, np.where(is_wrong, confidence, np.nan))
        for label, (recognitions, mistakes) in enumerate(
            zip(self._best_recognitions, self._worst_mistakes, strict=True)
        ):
            in_class = images.label == label
            recognitions.update(images, np.where(in_class & ~is_wrong, confidence, np.nan))
            mistakes.update(images, np.where(in_class & is_wrong, confidence, np.nan))
        if self._inspected_row is not None:
            is_inspected = images.row == self._inspected_row
            self._inspected.update(images, np.where(is_inspected, 0.0, np.nan))
        else:
            # A recognised image scores above 1, and therefore precedes all others.
            self._inspected.update(images, confidence + ~is_wrong)

    @property
    def examples(self) -> EvaluatedImages:
        """Randomly sampled images, in the order of their rows."""
        examples = self._examples.images
        return examples.take(np.argsort(examples.row))

    @property
    def mistakes(self) -> EvaluatedImages:
        """Wrong predictions of the highest probability, the highest first."""
        return self._mistakes.images

    @property
    def inspected_image(self) -> EvaluatedImages:
        """The one image for which the outputs of layers are plotted."""
        return self._inspected.images

    def best_recognition(self, label: int) -> EvaluatedImages:
        """Return the image of a class that is recognised with the highest probability, if any."""
        return self._best_recognitions[label].images

    def worst_mistake(self, label: int) -> EvaluatedImages:
        """Return the image of a class that is wrong with the highest probability, if any."""
        return self._worst_mistakes[label].images
