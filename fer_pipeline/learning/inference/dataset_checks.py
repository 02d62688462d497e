"""Checks that a trained model and a dataset fit each other; they need no TensorFlow."""

from __future__ import annotations

import logging

from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.learning.inference.trained_model import TrainedModel

log = logging.getLogger(__name__)


def require_compatible_dataset(model: TrainedModel, dataset: StoredDataset) -> None:
    """Check that a dataset has the classes and the image enhancement that a model was trained with.

    The enhancement is the denoising and contrast correction of the stored images.

    Raises:
        DatasetError: The dataset has different classes, a different order of the classes, or a
            different enhancement.
    """
    if list(model.info.classes) != dataset.classes:
        raise DatasetError(
            f"{dataset.folder}: its classes are {', '.join(dataset.classes)}, the model of"
            f" {model.folder} was trained for {', '.join(model.info.classes)}; use a dataset with"
            " the classes of the model, in the same order"
        )
    dataset.require_enhancement(model.info.enhancement)


def warn_about_leakage(model: TrainedModel, dataset: StoredDataset, split: Split) -> None:
    """Log a warning if the model may have been trained on the evaluated images.

    This is possible if the split is the train split, or if the model was trained on a different
    dataset.

    Args:
        model: Model to evaluate.
        dataset: Dataset that contains the evaluated images.
        split: Split that contains the evaluated images.
    """
    if split is Split.TRAIN:
        log.warning(
            "the model was trained on the train split, which is oversampled and augmented:"
            " its metrics do not apply to new images"
        )
    if model.info.dataset_checksum != dataset.checksum:
        log.warning(
            "the model was trained on a dataset with checksum %s, but this dataset has checksum %s:"
            " the model may have been trained on images of this split; the metrics without copies"
            " in training exclude only images that are in this dataset's train split",
            model.info.dataset_checksum,
            dataset.checksum,
        )
