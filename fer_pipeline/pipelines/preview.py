"""Preview of the augmentation of a dataset's training images."""

from __future__ import annotations

from pathlib import Path

from fer_pipeline.config import Config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.paths import parse_local_path
from fer_pipeline.learning.input.augmentation_operations import (
    OPERATIONS,
    list_enabled_operations,
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
    storage.require_writable(path.parent)
    stored = StoredDataset.open(dataset)
    stored.require_split(Split.TRAIN)
    # This imports TensorFlow, which takes seconds. All mistakes that can be found without it have
    # been reported by now.
    from fer_pipeline.pipelines import draw_preview

    image_count = draw_preview.draw_preview(stored, config, path)
    return f"{', '.join(operations)} on {image_count} images: {path}"


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
