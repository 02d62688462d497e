"""What a trained run says of a split of a dataset, row by row."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from fer_pipeline.data import images, manifest, schema
from fer_pipeline.data.arrow import arrow_schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.manifest import Manifest
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.learning.inference.predictor import Predict
from fer_pipeline.learning.inference.trained_model import ModelInfo
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.metrics import inputs
from fer_pipeline.metrics.samples import EvaluatedImages

log = logging.getLogger(__name__)

COPIED = "copy_in_training"
"""The column of the predictions that says which images have an exact copy in the train split."""

Columns = Mapping[str, npt.NDArray[Any]]
"""The label and origin of each row: name to an array of shape (rows,)."""


def require_compatible(run: Path, info: ModelInfo, data: Path, made: Manifest) -> None:
    """Refuses a dataset on which a model's answers would mean something else.

    Args:
        run: The run's folder.
        info: What it says of its model.
        data: The dataset's folder.
        made: Its manifest.

    Raises:
        DatasetError: It has other classes, in another order, or another enhancement.
    """
    if list(info.classes) != made.classes:
        raise DatasetError(
            f"{data}: its classes are {', '.join(made.classes)}, the model of {run} was trained for"
            f" {', '.join(info.classes)}; evaluate it on a dataset with those, in that order"
        )
    manifest.require_enhancement(data, made, info.enhancement)


def warn_of_leakage(info: ModelInfo, made: Manifest, split: Split) -> None:
    """Says what a model may have learnt from that it is evaluated on."""
    if split is Split.TRAIN:
        log.warning(
            "the train split is what the model learnt from, oversampled and augmented as it is:"
            " its numbers say nothing of new faces"
        )
    if info.dataset_checksum != made.checksum:
        log.warning(
            "the model was trained on another dataset (checksum %s, this one: %s): it may have"
            " learnt from images of this split, and the numbers without copies in training leave"
            " out only those that are in this dataset's train split",
            info.dataset_checksum,
            made.checksum,
        )


def keras_predict_fn(network: Any) -> Predict:
    """A model, as `bundle.load` gives it, as `predict` takes it."""
    return lambda pixels: network.predict_on_batch(pixels[..., np.newaxis])


def predict(
    model: Predict,
    info: ModelInfo,
    data: Path,
    made: Manifest,
    split: Split,
    *,
    batch_size: int,
    flip: bool = False,
    offer: Callable[[EvaluatedImages], None] | None = None,
) -> tuple[npt.NDArray[np.float32], Columns]:
    """Runs a model over a split, on images of the size that it takes.

    Args:
        model: From pixels, uint8 of shape (n, size, size), to probabilities.
        info: What its run says of it.
        data: The dataset's folder.
        made: Its manifest.
        split: The split.
        batch_size: Images that go through at once.
        flip: Whether the probabilities are the mean of those of an image and its mirror image.
        offer: Is shown every batch, with the images as the model sees them.

    Returns:
        Its probabilities, of shape (rows, classes), and the label and origin of each row, all in
        the order in which the rows are stored.

    Raises:
        DatasetError: The split is empty, or its images are not those that the manifest counts.
    """
    loader = BatchLoader(StoredDataset(data, made), split, LoaderOptions(batch_size))
    forward = functools.partial(images.predict_with_flip, model) if flip else model
    _warn_of_size(info, data, made)
    columns = (schema.LABEL, *schema.ORIGIN)
    given, parts, first = [], [], 0
    with tqdm(total=loader.row_count, unit=" images", desc="evaluate", disable=None) as progress:
        for stored, part in loader.iterate_stored_rows(columns):
            pixels = _of_size(stored, info.size)
            given.append(forward(pixels))
            parts.append(part)
            if offer is not None:
                offer(EvaluatedImages.from_batch(first, pixels, given[-1], part))
            first += len(pixels)
            progress.update(len(pixels))
    rows = {name: np.concatenate([part[name] for part in parts]) for name in columns}
    _require_counts(data, made, split, rows[schema.LABEL])
    return np.concatenate(given), rows


def copies_in_training(
    data: Path, made: Manifest, split: Split, rows: Columns
) -> npt.NDArray[np.bool_] | None:
    """Which rows have an exact copy, pixel by pixel, in the train split of their dataset.

    Args:
        data: The dataset's folder.
        made: Its manifest.
        split: That of the rows.
        rows: Of `predict`.

    Returns:
        bool of shape (rows,); None for the train split itself, and where that split is empty.

    Raises:
        DatasetError: A file of the train split is missing or damaged.
    """
    if split is Split.TRAIN or not made.rows_of(Split.TRAIN):
        return None
    name = "image_hash"
    known = []
    for file in manifest.require(data, made, Split.TRAIN):
        path = data / file.path
        try:
            with path.open("rb") as opened:
                known.append(pq.ParquetFile(opened).read([name]).column(name))
        except (OSError, KeyError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise DatasetError(
                f"{path}: cannot be read ({reason}); run preprocess again"
            ) from error
    trained = pa.chunked_array([chunk for column in known for chunk in column.chunks], pa.string())
    return pc.is_in(pa.array(rows[name], pa.string()), trained).to_numpy(zero_copy_only=False)


def table(
    probabilities: npt.NDArray[np.float32],
    rows: Columns,
    copied: npt.NDArray[np.bool_] | None,
    classes: Sequence[str],
) -> pa.Table:
    """What a model says of each image: one row per image, in the order of the dataset.

    Args:
        probabilities: Of `predict`.
        rows: Of `predict`.
        copied: Of `copies_in_training`; the column is null where it is None.
        classes: The names of the classes.
    """
    labels, guesses = rows[schema.LABEL], inputs.predict_classes(probabilities)
    names = pa.array(classes, pa.string())
    columns = {
        **{name: rows[name] for name in schema.ORIGIN},
        COPIED: pa.nulls(len(labels), pa.bool_()) if copied is None else copied,
        schema.LABEL: labels,
        "emotion": names.take(pa.array(labels)),
        "predicted": names.take(pa.array(guesses)),
        "correct": labels == guesses,
        "confidence": probabilities.max(axis=1),
        **{f"p_{name}": probabilities[:, label] for label, name in enumerate(classes)},
    }
    kinds = [
        *arrow_schema(schema.ORIGIN),
        (COPIED, pa.bool_()),
        (schema.LABEL, pa.int32()),
        ("emotion", pa.string()),
        ("predicted", pa.string()),
        ("correct", pa.bool_()),
        ("confidence", pa.float32()),
        *((f"p_{name}", pa.float32()) for name in classes),
    ]
    return pa.table(columns, pa.schema(kinds))


def _warn_of_size(info: ModelInfo, data: Path, made: Manifest) -> None:
    side = made.image.size
    if side != info.size:
        log.warning(
            "%s: its images are %dx%d, the model takes %dx%d: they are resized",
            data,
            side,
            side,
            info.size,
            info.size,
        )


def _of_size(pixels: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    if pixels.shape[1] == size:
        return pixels
    return np.stack([images.resize(image, size) for image in pixels])


def _require_counts(
    data: Path, made: Manifest, split: Split, labels: npt.NDArray[np.integer[Any]]
) -> None:
    """The feed has counted the rows; this counts each class."""
    found = {name: int((labels == label).sum()) for label, name in enumerate(made.classes)}
    if found != made.counts[split]:
        raise DatasetError(
            f"{data}: the {split} split holds {found}, its manifest says {made.counts[split]};"
            " run preprocess again"
        )
