"""Sampling, augmentation and drawing of the images of a preview, after all checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_pipeline.config import Config
from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.learning.input import augmentation_examples
from fer_pipeline.learning.input.augmentation_operations import (
    GEOMETRIC,
    list_enabled_operations,
)
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.plots.augmentation_preview import (
    AugmentationExamples,
    count_sample_band_columns,
    draw_augmentation_preview,
)


def draw_preview(dataset: StoredDataset, config: Config, path: Path) -> int:
    """Save the plot of `preview.preview`.

    Args:
        dataset: Dataset with training images.
        config: Configuration; at least one operation, or mixup, is enabled.
        path: Path of the PNG file to write.

    Returns:
        Number of images in the plot before augmentation.

    Raises:
        DatasetError: The dataset is damaged.
        StorageError: The file cannot be written.
    """
    pixels, labels = _sample_one_per_class(dataset, config)
    images = pixels.astype(np.float32)
    names = [dataset.classes[label] for label in labels]
    single = augmentation_examples.make_single_operation_examples(
        images, config.training.augmentation, config.seed
    )
    combined = augmentation_examples.make_random_examples(
        images,
        labels,
        dataset.classes,
        config.training,
        config.seed,
        count_sample_band_columns(single),
    )
    examples = AugmentationExamples(names, images, single, combined)
    title = f"Augmentation in training, on {dataset.name}"
    draw_augmentation_preview(examples, title, _format_subtitle(config), path)
    return len(images)


def _format_subtitle(config: Config) -> str:
    """Return the subtitle of the plot, which consists of the seed and up to two notes.

    If a geometric operation other than the flip is enabled, a note states how empty borders are
    filled. If any operation except mixup is enabled, a note says that each operation is shown by
    itself at both ends of its parameter range.
    """
    augmentation = config.training.augmentation
    operations = list_enabled_operations(augmentation)
    parts = [f"seed {config.seed}"]
    if set(operations) & set(GEOMETRIC) - {"flip"}:
        parts.append(f"border: {augmentation.border}")
    if operations:
        parts.append("each operation by itself at the ends of its range")
    return " · ".join(parts)


def _sample_one_per_class(
    dataset: StoredDataset, config: Config
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Return one random training image of each class that has training images.

    Returns:
        The images, uint8 of shape (n, size, size), and their labels, int32 of shape (n,).
    """
    options = LoaderOptions(config.inference.batch_size, reader=config.loader.reader)
    loader = BatchLoader(dataset, Split.TRAIN, options)
    rng = np.random.default_rng(config.seed)
    # Each row gets a random number, and the row with the highest number is selected. So one pass
    # is enough, and all rows of a class have the same probability.
    highest: dict[int, float] = {}
    images: dict[int, npt.NDArray[np.uint8]] = {}
    for pixels, columns in loader.iterate_stored_batches([schema.LABEL]):
        numbers = rng.random(len(pixels))
        for label in range(len(dataset.classes)):
            candidates = np.where(columns[schema.LABEL] == label, numbers, -1)
            row = int(candidates.argmax())
            if candidates[row] > highest.get(label, -1):
                highest[label], images[label] = candidates[row], pixels[row].copy()
    labels = sorted(images)
    return np.stack([images[label] for label in labels]), np.array(labels, np.int32)
