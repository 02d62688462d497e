"""Predictions of a trained model for the rows of a dataset's split."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from fer_pipeline.data import schema
from fer_pipeline.data.arrow import build_arrow_schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.image_preparation import resize
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.learning.inference.predictor import Pixels, PredictFn, predict_with_flip
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.metrics import inputs
from fer_pipeline.metrics.samples import EvaluatedImages
from fer_pipeline.text import one_line

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

COPY_COLUMN = "copy_in_training"
"""Column of the predictions: whether the train split has an exact copy of the image."""

Columns = Mapping[str, npt.NDArray[Any]]
"""Label and origin of each row: from column name to an array of shape (rows,)."""


def require_compatible(model: TrainedModel, dataset: StoredDataset) -> None:
    """Check that a dataset has the classes and the enhancement that a model was trained on.

    Raises:
        DatasetError: It has other classes, in another order, or another enhancement.
    """
    if list(model.info.classes) != dataset.classes:
        raise DatasetError(
            f"{dataset.folder}: its classes are {', '.join(dataset.classes)}, the model of"
            f" {model.folder} was trained for {', '.join(model.info.classes)}; use a dataset with"
            " the classes of the model, in the same order"
        )
    dataset.require_enhancement(model.info.enhancement)


def warn_about_leakage(model: TrainedModel, dataset: StoredDataset, split: Split) -> None:
    """Warn if the model may have been trained on the evaluated images."""
    if split is Split.TRAIN:
        log.warning(
            "the model was trained on the train split, which is oversampled and augmented:"
            " its metrics do not apply to new images"
        )
    if model.info.dataset_checksum != dataset.checksum:
        log.warning(
            "the model was trained on another dataset (checksum %s, this one: %s): it may have"
            " been trained on images of this split, and the metrics without copies in training"
            " exclude only images that are in this dataset's train split",
            model.info.dataset_checksum,
            dataset.checksum,
        )


def make_single_batch_predict_fn(network: keras.Model) -> PredictFn:
    """Return a function that runs a Keras model on one batch, for `predict`.

    Args:
        network: Model from raw pixels to probabilities, as `TrainedModel.load_network` returns.
    """
    return lambda pixels: network.predict_on_batch(pixels[..., np.newaxis])


def predict_rows(
    predict_fn: PredictFn,
    model: TrainedModel,
    dataset: StoredDataset,
    split: Split,
    *,
    batch_size: int,
    flip_tta: bool = False,
    on_batch: Callable[[EvaluatedImages], None] | None = None,
) -> tuple[npt.NDArray[np.float32], Columns]:
    """Run a model on a split; images of another size than the model's are resized.

    Args:
        predict_fn: Function from pixels to probabilities.
        model: Description of the model that it runs.
        dataset: The dataset.
        split: The split.
        batch_size: Images in a forward pass.
        flip_tta: Whether to average the probabilities of an image and its mirror image.
        on_batch: Called with each batch, whose images have the size of the model.

    Returns:
        Probabilities, of shape (rows, classes), and the label and origin of each row, both in the
        order in which the rows are stored.

    Raises:
        DatasetError: The split is empty, or its rows are not those that the manifest states.
    """
    loader = BatchLoader(dataset, split, LoaderOptions(batch_size))
    forward = functools.partial(predict_with_flip, predict_fn) if flip_tta else predict_fn
    size = model.info.size
    _warn_about_resizing(dataset, size)
    names = (schema.LABEL, *schema.ORIGIN)
    probabilities: list[npt.NDArray[np.float32]] = []
    parts: list[Columns] = []
    row = 0
    with tqdm(total=loader.row_count, unit=" images", desc="evaluate", disable=None) as progress:
        for stored_pixels, columns in loader.iterate_stored_rows(names):
            pixels = _resize_images(stored_pixels, size)
            probabilities.append(forward(pixels))
            parts.append(columns)
            if on_batch is not None:
                on_batch(EvaluatedImages.from_batch(row, pixels, probabilities[-1], columns))
            row += len(pixels)
            progress.update(len(pixels))
    rows = {name: np.concatenate([part[name] for part in parts]) for name in names}
    _require_class_counts(dataset, split, rows[schema.LABEL])
    return np.concatenate(probabilities), rows


def find_copies_in_training(
    dataset: StoredDataset, split: Split, rows: Columns
) -> npt.NDArray[np.bool_] | None:
    """Return which rows have an exact copy, pixel by pixel, in the dataset's train split.

    Args:
        dataset: The dataset.
        split: Split of the rows.
        rows: Label and origin of the rows, from `predict`.

    Returns:
        bool of shape (rows,); None for the train split itself, or if the train split is empty.

    Raises:
        DatasetError: A file of the train split is missing or damaged.
    """
    if split is Split.TRAIN or not dataset.row_count(Split.TRAIN):
        return None
    column = "image_hash"
    chunks = []
    for file in dataset.require_split(Split.TRAIN):
        path = dataset.folder / file.path
        try:
            with path.open("rb") as opened:
                chunks += pq.ParquetFile(opened).read([column]).column(column).chunks
        except (OSError, KeyError, pa.ArrowException) as error:
            raise DatasetError(
                f"{path}: cannot be read ({one_line(error)}); run preprocess again"
            ) from error
    train_hashes = pa.chunked_array(chunks, pa.string())
    is_copy = pc.is_in(pa.array(rows[column], pa.string()), train_hashes)
    return is_copy.to_numpy(zero_copy_only=False)


def make_predictions_table(
    probabilities: npt.NDArray[np.float32],
    rows: Columns,
    is_copy: npt.NDArray[np.bool_] | None,
    classes: Sequence[str],
) -> pa.Table:
    """Return the predictions as a table, one row per image in the order of the dataset.

    Args:
        probabilities: Probabilities, from `predict`.
        rows: Label and origin of the rows, from `predict`.
        is_copy: Result of `find_copies_in_training`; if it is None, the column is null.
        classes: Names of the classes.
    """
    labels, predicted = rows[schema.LABEL], inputs.predict_classes(probabilities)
    names = pa.array(classes, pa.string())
    columns = {
        **{name: rows[name] for name in schema.ORIGIN},
        COPY_COLUMN: pa.nulls(len(labels), pa.bool_()) if is_copy is None else is_copy,
        schema.LABEL: labels,
        "emotion": names.take(pa.array(labels)),
        "predicted": names.take(pa.array(predicted)),
        "correct": labels == predicted,
        "confidence": probabilities.max(axis=1),
        **{f"p_{name}": probabilities[:, label] for label, name in enumerate(classes)},
    }
    fields = [
        *build_arrow_schema(schema.ORIGIN),
        (COPY_COLUMN, pa.bool_()),
        (schema.LABEL, pa.int32()),
        ("emotion", pa.string()),
        ("predicted", pa.string()),
        ("correct", pa.bool_()),
        ("confidence", pa.float32()),
        *((f"p_{name}", pa.float32()) for name in classes),
    ]
    return pa.table(columns, pa.schema(fields))


def _warn_about_resizing(dataset: StoredDataset, size: int) -> None:
    stored_size = dataset.image_size
    if stored_size != size:
        log.warning(
            "%s: its images are %dx%d, the model takes %dx%d: they are resized",
            dataset.folder,
            stored_size,
            stored_size,
            size,
            size,
        )


def _resize_images(pixels: Pixels, size: int) -> Pixels:
    if pixels.shape[1] == size:
        return pixels
    return np.stack([resize(image, size) for image in pixels])


def _require_class_counts(
    dataset: StoredDataset, split: Split, labels: npt.NDArray[np.integer[Any]]
) -> None:
    """Check the number of rows of each class; the loader has checked their total.

    Raises:
        DatasetError: The numbers differ from the manifest's.
    """
    counts = {name: int((labels == label).sum()) for label, name in enumerate(dataset.classes)}
    expected_counts = dataset.manifest.counts[split]
    if counts != expected_counts:
        raise DatasetError(
            f"{dataset.folder}: the {split} split holds {counts}, its manifest says"
            f" {expected_counts}; run preprocess again"
        )
