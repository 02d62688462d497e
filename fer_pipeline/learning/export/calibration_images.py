"""Random images of a dataset that calibrate a quantization, and others that test it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.image_preparation import resize
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions

CALIBRATION_IMAGES = 512
TRIAL_IMAGES = 20_000
"""Bound for memory and time; FER2013's validation split is smaller."""

_BATCH_SIZE = 1024  # images that are read at a time


@dataclass(frozen=True)
class LabelledImages:
    """Some rows of a split.

    Attributes:
        split: The split.
        pixels: Images, uint8 of shape (n, size, size).
        labels: Labels, int32 of shape (n,).
    """

    split: Split
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]


def sample_calibration_images(
    dataset: StoredDataset, size: int, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Sample images for the calibration and other images for the trial.

    The calibration uses the train split, the trial the validation split. If one of them is empty,
    both use the other one and share no row. The trial decides which format scores, so it never
    uses the test split.

    Args:
        dataset: The dataset.
        size: Side of the returned images, in pixels.
        seed: Seed of the sampling.

    Returns:
        At most 512 rows, and at most 20,000, each in the order in which they are stored.

    Raises:
        DatasetError: Fewer than two rows are outside the test split, or a file is missing or
            damaged.
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
    calibration_count = min(CALIBRATION_IMAGES, len(order) // 2 if is_shared else len(order))
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
        _read_rows(dataset, calibration_split, calibration_rows, size),
        _read_rows(dataset, trial_split, trial_rows[:TRIAL_IMAGES], size),
    )


def _read_rows(
    dataset: StoredDataset, split: Split, rows: npt.NDArray[np.int64], size: int
) -> LabelledImages:
    is_selected = np.zeros(dataset.row_count(split), bool)
    is_selected[rows] = True
    loader = BatchLoader(dataset, split, LoaderOptions(_BATCH_SIZE))
    pixels, labels, start = [], [], 0
    for stored_pixels, columns in loader.iterate_stored_rows([schema.LABEL]):
        selected = is_selected[start : start + len(stored_pixels)]
        pixels += [resize(image, size) for image in stored_pixels[selected]]
        labels.append(columns[schema.LABEL][selected])
        start += len(stored_pixels)
    return LabelledImages(split, np.stack(pixels), np.concatenate(labels))
