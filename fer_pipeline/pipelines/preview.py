"""What augmentation will make of a dataset's images, to look at before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.config import Config
from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError, StorageError
from fer_pipeline.io.paths import parse_local_path
from fer_pipeline.learning.input import augmentation_examples
from fer_pipeline.learning.input.augmentation import GEOMETRIC, OPERATIONS, enabled_operations
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.plots import augmentation_preview as drawing


def preview(dataset: str, config: Config, picture: Path) -> str:
    """Draws one training image of each class, and what training makes of it.

    The images are drawn by the configuration's seed. Beside each original stand the operations that
    are on, each by itself at the ends of its range, then all of them together.

    Args:
        dataset: The dataset's folder.
        config: The configuration.
        picture: The PNG.

    Returns:
        What was drawn, for a terminal.

    Raises:
        ConfigError: Nothing is on.
        DatasetError: The dataset is none, is damaged, or has no training rows.
        StorageError: The file's name does not end in .png, or it cannot be written.
    """
    training, seed = config.training, config.seed
    on = enabled_operations(training.augmentation) + (["mixup"] if training.mixup_alpha else [])
    if not on:
        raise ConfigError(
            "nothing to preview: training changes no image; set one of training.augmentation"
            f" ({', '.join(OPERATIONS)}) or training.mixup_alpha"
        )
    path = parse_local_path(picture)
    if path.suffix != ".png":
        raise StorageError(f"{path}: a preview is drawn as .png; name a file that ends so")
    stored = StoredDataset.open(dataset)
    pixels, labels = _one_per_class(stored, config)
    images = pixels.astype(np.float32)
    names = [stored.classes[label] for label in labels]
    single = augmentation_examples.per_operation_examples(images, training.augmentation, seed)
    room = drawing.free_columns(single)
    drawn = augmentation_examples.sampled_examples(
        images, labels, stored.classes, training, seed, room
    )
    examples = drawing.AugmentationExamples(names, images, single, drawn)
    title = f"Augmentation in training, on {stored.name}"
    drawing.draw_augmentation_preview(examples, title, _subtitle(config), path)
    return f"{', '.join(on)} on {len(images)} images: {path}"


def _subtitle(config: Config) -> str:
    chosen = config.training.augmentation
    on = enabled_operations(chosen)
    parts = [f"seed {config.seed}"]
    if set(on) & set(GEOMETRIC) - {"flip"}:
        parts.append(f"border: {chosen.border}")
    if on:
        parts.append("each operation by itself at the ends of its range")
    return " · ".join(parts)


def _one_per_class(
    dataset: StoredDataset, config: Config
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """An image of each class that has any, of shape (rows, size, size), and their labels."""
    options = LoaderOptions(config.inference.batch_size)
    loader = BatchLoader(dataset, Split.TRAIN, options)
    rng = np.random.default_rng(config.seed)
    # The row with the highest number wins: one pass, in which every row has the same chance.
    highest: dict[int, tuple[float, npt.NDArray[Any]]] = {}
    for pixels, columns in loader.iterate_stored_rows([schema.LABEL]):
        numbers = rng.random(len(pixels))
        for label in range(len(dataset.classes)):
            own = np.where(columns[schema.LABEL] == label, numbers, -1)
            row = int(own.argmax())
            if own[row] > highest.get(label, (-1,))[0]:
                highest[label] = (own[row], pixels[row].copy())
    labels = sorted(highest)
    return np.stack([highest[label][1] for label in labels]), np.array(labels, np.int32)
