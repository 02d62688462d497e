"""Selection of the images for the plots of an evaluation, in one pass over all images."""

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
"""Maximum number of images in a plot of examples or of mistakes.

Reference system E, which is described in `docs/networks.md`, shows 5 x 5 images.
"""


@dataclass(frozen=True)
class EvaluatedImages:
    """Images with their true classes and predictions; each array has one entry per image.

    Attributes:
        row: Row number in the split, from 0 in the stored order, int64 of shape (n,).
        pixels: Grey values, uint8 of shape (n, size, size).
        label: True classes, of shape (n,).
        probabilities: Predicted probabilities, of shape (n, classes).
        source: Files that the images were read from, of shape (n,).
        record: Record number in the source file, from 0, int64 of shape (n,). A record is a row of
            a CSV file, or the only image of an image file.
        variant: Variant of the source image that each image is, such as `original`, `flip`
            (mirrored) or `rotate+10` (rotated by 10 degrees), of shape (n,).
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
        """Create the object for a batch of n images, which are consecutive rows of a split.

        Args:
            first_row: Row number of the first image in the split, from 0.
            pixels: Grey values, uint8 of shape (n, size, size).
            probabilities: Predicted probabilities, of shape (n, classes).
            columns: Columns of the batch by name. `label`, `source`, `record` and `variant` are
                used.
        """
        row = np.arange(first_row, first_row + len(pixels), dtype=np.int64)
        origin = {name: columns[name] for name in ("source", "record", "variant")}
        return cls(row, pixels, columns[schema.LABEL], probabilities, **origin)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.row)

    @property
    def predicted_label(self) -> npt.NDArray[np.int64]:
        """Index of the predicted class of each image, of shape (n,)."""
        return inputs.predict_classes(self.probabilities)

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """Probabilities of the predicted classes, of shape (n,)."""
        return self.probabilities.max(axis=1)

    @property
    def is_wrong(self) -> npt.NDArray[np.bool_]:
        """Mask of the wrongly classified images, of shape (n,)."""
        return self.predicted_label != self.label

    def take(self, index: npt.NDArray[Any]) -> EvaluatedImages:
        """Return a copy of some of the images.

        The copy shares no memory with this object, so that the memory of a large batch is freed if
        only a few of its images are kept.

        Args:
            index: Positions of the images, an integer array, or a boolean mask of shape (n,).
        """
        return EvaluatedImages(
            *(getattr(self, field.name)[index] for field in dataclasses.fields(self))
        )

    def concatenate(self, images: EvaluatedImages) -> EvaluatedImages:
        """Return a new object with these images, followed by other images.

        Args:
            images: Images to append.
        """
        return EvaluatedImages(
            *(
                np.concatenate([getattr(self, field.name), getattr(images, field.name)])
                for field in dataclasses.fields(self)
            )
        )


class TopK:
    """The images with the highest scores so far. Of equal scores, earlier images are preferred."""

    def __init__(self, max_count: int) -> None:
        """Start without images.

        Args:
            max_count: Maximum number of images to keep.
        """
        self._max_count = max_count
        self._scores = np.empty(0)
        self._images: EvaluatedImages | None = None

    def update(self, images: EvaluatedImages, scores: npt.NDArray[Any]) -> None:
        """Add images, then keep only the `max_count` images with the highest scores.

        Of images with the same score, those that were added earlier are kept.

        Args:
            images: Images to add.
            scores: Score of each image, of shape (n,); NaN excludes an image.
        """
        if len(self._scores) == self._max_count and self._max_count:
            # An equal score is not enough: earlier images are preferred.
            is_candidate = scores > self._scores[-1]
        else:
            is_candidate = ~np.isnan(scores)
        candidates = images.take(is_candidate)
        if self._images is not None:
            candidates = self._images.concatenate(candidates)
        candidate_scores = np.concatenate([self._scores, scores[is_candidate]])
        order = np.argsort(-candidate_scores, kind="stable")[: self._max_count]
        self._scores, self._images = candidate_scores[order], candidates.take(order)

    @property
    def images(self) -> EvaluatedImages:
        """Images with the highest scores, in descending order of score.

        Raises:
            ValueError: `update` was never called.
        """
        if self._images is None:
            raise ValueError("no image was added")
        return self._images


class SampleSelector:
    """Selector of the images for the plots of an evaluation; keeps only these images in memory.

    Attributes:
        classes: Names of the classes, in the order of their labels.
        seed: Seed of the random examples.
    """

    def __init__(self, classes: Sequence[str], seed: int, inspected_row: int | None = None) -> None:
        """Start without images.

        Args:
            classes: Names of the classes, in the order of their labels.
            seed: Seed of the random examples. The selected rows do not depend on the batch size.
            inspected_row: Row number, in the split, of the image whose layer outputs are plotted.
                None selects the correctly classified image with the highest confidence, or the
                wrongly classified one with the highest confidence if none is correctly classified.
        """
        self.classes = tuple(classes)
        self.seed = seed
        self._random = np.random.default_rng(seed)
        self._inspected_row = inspected_row
        self._examples = TopK(MAX_IMAGES)
        self._mistakes = TopK(MAX_IMAGES)
        self._inspected = TopK(1)
        self._best_correct = [TopK(1) for _ in self.classes]
        self._worst_mistakes = [TopK(1) for _ in self.classes]

    def update(self, images: EvaluatedImages) -> None:
        """Update the selected images with the next batch of evaluated images.

        Args:
            images: Next batch. Batches must arrive in the order of their rows.
        """
        is_wrong, confidence = images.is_wrong, images.confidence.astype(np.float64)
        # The rows with the highest random numbers are a uniform sample without replacement.
        self._examples.update(images, self._random.random(len(images)))
        self._mistakes.update(images, np.where(is_wrong, confidence, np.nan))
        for label, (best_correct, worst_mistake) in enumerate(
            zip(self._best_correct, self._worst_mistakes, strict=True)
        ):
            is_in_class = images.label == label
            best_correct.update(images, np.where(is_in_class & ~is_wrong, confidence, np.nan))
            worst_mistake.update(images, np.where(is_in_class & is_wrong, confidence, np.nan))
        if self._inspected_row is not None:
            is_inspected = images.row == self._inspected_row
            self._inspected.update(images, np.where(is_inspected, 0.0, np.nan))
        else:
            # A correctly classified image scores above 1 and so ranks before all wrong ones.
            self._inspected.update(images, confidence + ~is_wrong)

    @property
    def examples(self) -> EvaluatedImages:
        """Random sample of up to `MAX_IMAGES` images, in the order of their rows."""
        examples = self._examples.images
        return examples.take(np.argsort(examples.row))

    @property
    def mistakes(self) -> EvaluatedImages:
        """Up to `MAX_IMAGES` wrongly classified images, those with the highest confidence.

        They are in descending order of confidence.
        """
        return self._mistakes.images

    @property
    def inspected_image(self) -> EvaluatedImages:
        """Image whose layer outputs are plotted, as `EvaluatedImages` of length 1.

        The length is 0 if the image with the given row number has not been added yet.

        Raises:
            ValueError: `update` was never called.
        """
        return self._inspected.images

    def get_best_correct_image(self, label: int) -> EvaluatedImages:
        """Return the most confident of the correctly classified images of a class.

        Args:
            label: Index of the true class.

        Returns:
            The single image, or no image if no image of the class is correctly classified.
        """
        return self._best_correct[label].images

    def get_worst_mistake(self, label: int) -> EvaluatedImages:
        """Return the most confident of the wrongly classified images of a class.

        Args:
            label: Index of the true class.

        Returns:
            The single image, or no image if no image of the class is wrongly classified.
        """
        return self._worst_mistakes[label].images
