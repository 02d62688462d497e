"""Preview of the augmentation of a dataset's training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_pipeline.config import Config
from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError, StorageError
from fer_pipeline.io.paths import parse_local_path
from fer_pipeline.learning.input import augmentation_examples
from fer_pipeline.learning.input.augmentation import GEOMETRIC, OPERATIONS, list_enabled_operations
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.plots.augmentation_preview import (
    AugmentationExamples,
    count_sample_band_columns,
    draw_augmentation_preview,
)


def preview(dataset: str, config: Config, output: Path) -> str:
    """Save a plot of one training image of each class before and after augmentation.

    The images are sampled with the seed of the configuration. Each row of the plot shows one image:
    the original, then each enabled operation by itself at both ends of its parameter range, then
    random samples of all operations together.

    Args:
        dataset: Folder of the dataset.
        config: Configuration. Only the section `training`, `inference.batch_size`,
            `loader.reader` and `seed` are used.
        output: Path of the PNG file to write.

    Returns:
        A line with the enabled operations and the path of the plot, for the terminal.

    Raises:
        ConfigError: Neither an augmentation operation nor mixup is enabled.
        DatasetError: The folder does not contain a dataset, or the dataset is damaged or has no
            training rows.
        StorageError: The file name does not end in .png, or the file cannot be written.
    """
    operations = _list_previewed_operations(config)
    path = parse_local_path(output)
    if path.suffix != ".png":
        raise StorageError(f"{path}: a preview is a PNG file; choose a name that ends in .png")
    stored = StoredDataset.open(dataset)
    pixels, labels = _sample_one_per_class(stored, config)
    images = pixels.astype(np.float32)
    names = [stored.classes[label] for label in labels]
    single = augmentation_examples.make_single_operation_examples(
        images, config.training.augmentation, config.seed
    )
    combined = augmentation_examples.make_random_examples(
        images,
        labels,
        stored.classes,
        config.training,
        config.seed,
        count_sample_band_columns(single),
    )
    examples = AugmentationExamples(names, images, single, combined)
    title = f"Augmentation in training, on {stored.name}"
    draw_augmentation_preview(examples, title, _format_subtitle(config), path)
    return f"{', '.join(operations)} on {len(images)} images: {path}"


def _list_previewed_operations(config: Config) -> list[str]:
    """Return the names of the enabled augmentation operations, and "mixup" if that is enabled.

    Raises:
        ConfigError: Neither an augmentation operation nor mixup is enabled.
    """
    operations = list_enabled_operations(config.training.augmentation)
    if config.training.mixup_alpha:
        operations = [*operations, "mixup"]
    if not operations:
        raise ConfigError(
            "nothing to preview: training changes no image; set one of training.augmentation"
            f" ({', '.join(OPERATIONS)}) or training.mixup_alpha"
        )
    return operations


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
