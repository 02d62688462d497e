"""Random images of a dataset for quantizing a model and for testing the quantized model.

The calibration images determine the scales of the quantized activations. The trial images are
classified by the quantized model and the float32 model, to compare their accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_pipeline.config.schema import ReaderName
from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.image_preparation import resize
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions

MAX_CALIBRATION_IMAGES = 512
"""Maximum number of images that calibrate a quantization."""

MAX_TRIAL_IMAGES = 20_000
"""Maximum number of images that test a quantized model; limits memory and time."""

_BATCH_SIZE = 1024  # images to read at a time


@dataclass(frozen=True)
class LabelledImages:
    """Images and labels of selected rows of a split.

    Attributes:
        split: Split that the rows belong to.
        pixels: Images, uint8 of shape (n, size, size).
        labels: Labels, int32 of shape (n,).
    """

    split: Split
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]


def sample_calibration_and_trial_images(
    dataset: StoredDataset, size: int, seed: int, reader: ReaderName = "petastorm"
) -> tuple[LabelledImages, LabelledImages]:
    """Sample images for quantizing a model, and other images for testing the quantized model.

    The calibration images determine the scales of the quantized activations; they come from the
    train split. The trial images are for comparing the quantized model with the float32 model; they
    come from the validation split. If one of these splits is empty, all images come from the other
    one, and no row is used twice. The test split is not used, because the comparison may decide
    which model is used for scoring.

    Args:
        dataset: Dataset to sample from.
        size: Height and width of the returned images, in pixels.
        seed: Random seed of the sampling.
        reader: Package that reads the dataset.

    Returns:
        The calibration images (at most 512) and the trial images (at most 20,000), with their
        labels, in the order in which they are stored.

    Raises:
        DatasetError: The train and validation splits have fewer than two rows together, or a file
            is missing or damaged.
    """
    splits = [split for split in (Split.TRAIN, Split.VALIDATION) if dataset.row_count(split)]
    if not splits:
        raise DatasetError(
            f"{dataset.folder}: has no image outside its test split; int8 is calibrated and tested"
            " on images of the train and validation splits: prepare a dataset that has some"
        )
    calibration_split, trial_split = splits[0], splits[-1]
    random = np.random.default_rng(seed)
    order = random.permutation(dataset.row_count(calibration_split))
    is_shared = trial_split is calibration_split
    calibration_count = min(MAX_CALIBRATION_IMAGES, len(order) // 2 if is_shared else len(order))
    if not calibration_count:
        raise DatasetError(
            f"{dataset.folder}: has one image outside its test split; int8 needs one for the"
            " calibration and another one for the trial"
        )
    calibration_rows = order[:calibration_count]
    trial_rows = (
        order[calibration_count:]
        if is_shared
        else random.permutation(dataset.row_count(trial_split))
    )
    return (
        _read_rows(dataset, calibration_split, calibration_rows, size, reader),
        _read_rows(dataset, trial_split, trial_rows[:MAX_TRIAL_IMAGES], size, reader),
    )


def _read_rows(
    dataset: StoredDataset,
    split: Split,
    rows: npt.NDArray[np.int64],
    size: int,
    reader: ReaderName,
) -> LabelledImages:
    """Read some rows of a split and resize their images.

    Args:
        dataset: Dataset to read.
        split: Split to read.
        rows: Row numbers, from 0, in any order.
        size: Height and width of the returned images, in pixels.
        reader: Package that reads the dataset.

    Returns:
        The images and labels of the rows, in the order in which they are stored.
    """
    is_selected = np.zeros(dataset.row_count(split), bool)
    is_selected[rows] = True
    loader = BatchLoader(dataset, split, LoaderOptions(_BATCH_SIZE, reader=reader))
    pixels, labels, first_row = [], [], 0
    for stored_pixels, columns in loader.iterate_stored_batches([schema.LABEL]):
        is_in_sample = is_selected[first_row : first_row + len(stored_pixels)]
        pixels += [resize(image, size) for image in stored_pixels[is_in_sample]]
        labels.append(columns[schema.LABEL][is_in_sample])
        first_row += len(stored_pixels)
    return LabelledImages(split, np.stack(pixels), np.concatenate(labels))
