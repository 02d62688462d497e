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

from fer_pipeline.config.schema import ReaderName
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
"""Column of the predictions: whether the train split contains an exact copy of the image."""

Columns = Mapping[str, npt.NDArray[Any]]
"""Labels and origins of rows: an array of shape (rows,) for each column name."""


def make_single_batch_predict_fn(network: keras.Model) -> PredictFn:
    """Return a function that predicts the probabilities of all images in one forward pass.

    Args:
        network: Model that maps raw pixels to probabilities, from `TrainedModel.load_network`.
    """
    return lambda pixels: network.predict_on_batch(pixels[..., np.newaxis])


def predict_rows(
    predict_fn: PredictFn,
    model: TrainedModel,
    dataset: StoredDataset,
    split: Split,
    *,
    batch_size: int,
    reader: ReaderName,
    flip_tta: bool = False,
    on_batch: Callable[[EvaluatedImages], None] | None = None,
) -> tuple[npt.NDArray[np.float32], Columns]:
    """Predict the class probabilities of all rows of a split, and read their labels and origins.

    The origin of a row consists of its source file, its record number in this file, and so on. If
    the model needs a different image size, the images are resized and a warning is logged.

    Args:
        predict_fn: Function that maps the pixels of a batch to probabilities.
        model: Model that `predict_fn` runs.
        dataset: Dataset with the split.
        split: Split to predict.
        batch_size: Number of images in a batch.
        reader: Package that reads the dataset.
        flip_tta: Whether to average the probabilities of an image and its mirror image.
        on_batch: Function to call with each batch of resized images and their predictions.

    Returns:
        probabilities: float32 of shape (rows, classes), in the order of the stored rows.
        rows: Columns `label` and those of `schema.ORIGIN`, in the same order.

    Raises:
        DatasetError: The split is empty, a file is missing or damaged, or the rows differ from the
            manifest.
    """
    loader = BatchLoader(dataset, split, LoaderOptions(batch_size, reader=reader))
    forward = functools.partial(predict_with_flip, predict_fn) if flip_tta else predict_fn
    size = model.info.size
    _warn_about_resizing(dataset, size)
    column_names = (schema.LABEL, *schema.ORIGIN)
    probabilities: list[npt.NDArray[np.float32]] = []
    parts: list[Columns] = []
    first_row = 0
    with tqdm(total=loader.row_count, unit=" images", desc="evaluate", disable=None) as progress:
        for stored_pixels, columns in loader.iterate_stored_batches(column_names):
            pixels = _resize_images(stored_pixels, size)
            probabilities.append(forward(pixels))
            parts.append(columns)
            if on_batch is not None:
                on_batch(EvaluatedImages.from_batch(first_row, pixels, probabilities[-1], columns))
            first_row += len(pixels)
            progress.update(len(pixels))
    rows = {name: np.concatenate([part[name] for part in parts]) for name in column_names}
    _require_class_counts(dataset, split, rows[schema.LABEL])
    return np.concatenate(probabilities), rows


def find_copies_in_training(
    dataset: StoredDataset, split: Split, rows: Columns
) -> npt.NDArray[np.bool_] | None:
    """Find the rows of a split whose image is equal in all pixels to an image of the train split.

    Args:
        dataset: The dataset.
        split: Split of the rows.
        rows: Columns of the split, from `predict_rows`. The column `image_hash` is compared.

    Returns:
        Whether each row has a copy, bool of shape (rows,); None for the train split itself, or if
        the train split is empty.

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
    """Return the predictions as a table with one row per image, in the order of the dataset.

    Args:
        probabilities: Predicted probabilities, float32 of shape (rows, classes).
        rows: Columns of the split, from `predict_rows`: the label of each image and its origin,
            such as the file that it was read from.
        is_copy: Whether the train split contains an exact copy of each image, bool of shape
            (rows,), for the column `copy_in_training`; if it is None, this column is null.
        classes: Names of the classes.
    """
    labels = rows[schema.LABEL]
    predicted_labels = inputs.predict_classes(probabilities)
    class_names = pa.array(classes, pa.string())
    columns = {
        **{name: rows[name] for name in schema.ORIGIN},
        COPY_COLUMN: pa.nulls(len(labels), pa.bool_()) if is_copy is None else is_copy,
        schema.LABEL: labels,
        "emotion": class_names.take(pa.array(labels)),
        "predicted": class_names.take(pa.array(predicted_labels)),
        "correct": labels == predicted_labels,
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
    """Log a warning if the images of a dataset must be resized for a model.

    Args:
        dataset: The dataset.
        size: Height and width of the model's input images, in pixels.
    """
    stored_size = dataset.image_size
    if stored_size != size:
        log.warning(
            "%s: its images of %dx%d pixels are resized to %dx%d pixels for the model",
            dataset.folder,
            stored_size,
            stored_size,
            size,
            size,
        )


def _resize_images(pixels: Pixels, size: int) -> Pixels:
    """Return images resized to `size` x `size` pixels; unchanged if they have this size already."""
    if pixels.shape[1] == size:
        return pixels
    return np.stack([resize(image, size) for image in pixels])


def _require_class_counts(
    dataset: StoredDataset, split: Split, labels: npt.NDArray[np.integer[Any]]
) -> None:
    """Check that a split has as many rows of each class as the dataset's manifest states.

    The loader that read the rows checks only their total number.

    Args:
        dataset: Dataset that was read.
        split: Split that was read.
        labels: Labels of all rows that were read, integers of shape (rows,).

    Raises:
        DatasetError: The number of rows of a class differs from the manifest.
    """
    counts = {name: int((labels == label).sum()) for label, name in enumerate(dataset.classes)}
    expected_counts = dataset.manifest.counts[split]
    if counts != expected_counts:
        raise DatasetError(
            f"{dataset.folder}: the {split} split holds {counts}, its manifest says"
            f" {expected_counts}; run preprocess again"
        )
