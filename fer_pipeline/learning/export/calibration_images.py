"""Faces drawn from a dataset: some to quantise a network on, others to try it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_pipeline.data import images, schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.manifest import Manifest
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions

# Of FER2013 a whole split; the bound is for memory and minutes.
CALIBRATION_ROWS, TRIAL_ROWS = 512, 20_000
_BATCH = 1024


@dataclass(frozen=True)
class LabelledImages:
    """Some rows of a split.

    Attributes:
        split: The split.
        pixels: Uint8 of shape (n, size, size).
        labels: Int32 of shape (n,).
    """

    split: Split
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]


def sample_calibration_images(
    folder: Path, made: Manifest, size: int, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Draws faces for calibration and other faces for a trial.

    The first come from the train split, the others from the validation split. Without one of them,
    both come from the other one, and share no row. The trial decides which form of a model scores,
    so it never sees the test split.

    Args:
        folder: The dataset's folder.
        made: Its manifest.
        size: The side of the result's images, in pixels.
        seed: The same seed draws the same rows.

    Returns:
        512 rows at most, and 20,000 at most, in the order in which they are stored.

    Raises:
        DatasetError: There are no two rows outside the test split, or a file is missing or damaged.
    """
    filled = [split for split in (Split.TRAIN, Split.VALIDATION) if made.rows_of(split)]
    if not filled:
        raise DatasetError(
            f"{folder}: has no image outside its test split; int8 is calibrated and tried on those"
            " of train or validation: prepare a dataset that has some"
        )
    source, target = filled[0], filled[-1]
    random = np.random.default_rng(seed)
    order = random.permutation(made.rows_of(source))
    first = min(CALIBRATION_ROWS, len(order) // 2 if target is source else len(order))
    if not first:
        raise DatasetError(
            f"{folder}: holds one image outside its test split; int8 needs one to be calibrated on"
            " and another one to be tried on"
        )
    rest = order[first:] if target is source else random.permutation(made.rows_of(target))
    return (
        _rows(folder, made, source, order[:first], size),
        _rows(folder, made, target, rest[:TRIAL_ROWS], size),
    )


def _rows(
    folder: Path, made: Manifest, split: Split, chosen: npt.NDArray[np.int64], size: int
) -> LabelledImages:
    wanted = np.zeros(made.rows_of(split), bool)
    wanted[chosen] = True
    pixels, labels, first = [], [], 0
    loader = BatchLoader(StoredDataset(folder, made), split, LoaderOptions(_BATCH))
    for found, columns in loader.iterate_stored_rows([schema.LABEL]):
        part = wanted[first : first + len(found)]
        pixels += [images.resize(face, size) for face in found[part]]
        labels.append(columns[schema.LABEL][part])
        first += len(found)
    return LabelledImages(split, np.stack(pixels), np.concatenate(labels))
