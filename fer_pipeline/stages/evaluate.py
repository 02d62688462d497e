"""From a trained run and a split of a dataset to an honest report."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from fer_pipeline import manifest, metrics, provenance, publication, report, schema, storage
from fer_pipeline.accounting import Split
from fer_pipeline.arrow import arrow_schema
from fer_pipeline.config import Config
from fer_pipeline.errors import DatasetError, RunError
from fer_pipeline.gallery import Faces, Gallery
from fer_pipeline.learning.data.feed import Feed
from fer_pipeline.learning.evaluation.inspection import Inspection
from fer_pipeline.learning.model import bundle
from fer_pipeline.learning.model.bundle import RunInfo
from fer_pipeline.manifest import Manifest
from fer_pipeline.metrics import Metrics
from fer_pipeline.publication import CONFIG, EVALUATION
from fer_pipeline.stages import pictures

log = logging.getLogger(__name__)

PREDICTIONS = EVALUATION.names[0]
OUTPUTS = (*EVALUATION.names, EVALUATION.mark, CONFIG)
"""What an evaluation consists of, in the order in which it is written.

The last two pictures are of a network with convolutions only.
"""

_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "scikit-learn", "petastorm")

_Columns = Mapping[str, npt.NDArray[Any]]


def evaluate(
    model: str | Path,
    dataset: str | Path,
    split: Split,
    output: str | Path,
    config: Config,
    overwrite: bool = False,
    layers: Sequence[str] = (),
    image: int | None = None,
) -> Metrics:
    """Evaluates a trained run on one split of a dataset.

    `metrics.json` is written after all that it speaks of and, in an overwrite, taken away before
    any of that is replaced: a folder that has one holds a whole evaluation of one model.

    Args:
        model: The run's folder.
        dataset: The dataset's folder.
        split: The split.
        output: The folder for the evaluation.
        config: The configuration.
        overwrite: Whether an evaluation that is there may be replaced.
        layers: Whose outputs are drawn; by default those of `Inspection.chosen`.
        image: The row of the split for which they are drawn, from 0; by default the one that is
            recognised with the highest probability.

    Raises:
        RunError: The folder is no finished run, its network has no such layer, or its model does
            not give probabilities.
        DatasetError: It is no dataset, or has other classes, another size of image or another
            enhancement than the model, or its split is empty, broken or has no such row.
        StorageError: There is an evaluation already, or the folder holds what is not ours.
    """
    run, data, folder = (storage.local_path(path) for path in (model, dataset, output))
    publication.claim(folder, EVALUATION, overwrite=overwrite)
    made = manifest.read(data)
    manifest.require(data, made, split)
    network, info = bundle.load(run)
    _fits(run, info, data, made)
    inspection = Inspection(network)
    drawn = inspection.chosen(layers)
    _require_row(data, made, split, image)
    _warn_of_leakage(info, made, split)
    gallery = Gallery(len(made.classes), config.seed, image)
    batch_size = config.inference.batch_size
    probabilities, rows = _predict(network, data, made, split, batch_size, gallery)
    try:
        result = metrics.measure(rows[schema.LABEL], probabilities, made.classes)
    except ValueError as error:
        raise RunError(f"{run}: its model cannot be evaluated: {error}") from error
    publication.begin(folder)
    with storage.replacing(folder / PREDICTIONS) as temporary:
        table = _table(probabilities, rows, made.classes)
        pq.write_table(table, temporary, compression="zstd")
        # Here an older evaluation ends. Without its mark, its configuration would not be ours.
        for name in (CONFIG, EVALUATION.mark):
            (folder / name).unlink(missing_ok=True)
    title = f"model {run.resolve().name} on the {split} split of {data.resolve().name}"
    pictures.of_numbers(result, title, folder)
    pictures.of_images(inspection, drawn, gallery, made.classes, title, folder)
    about = _about(run, info, data, made, split)
    text = json.dumps({**about, **result.to_dict()}, indent=2, allow_nan=False)
    storage.write_text(folder / EVALUATION.mark, text + "\n")
    config.write(folder / CONFIG)
    publication.clean(folder, EVALUATION, keep=())
    return result


def _fits(run: Path, info: RunInfo, data: Path, made: Manifest) -> None:
    """Refuses a dataset on which the model's answers would mean something else."""
    if list(info.classes) != made.classes:
        raise DatasetError(
            f"{data}: its classes are {', '.join(made.classes)}, the model of {run} was trained for"
            f" {', '.join(info.classes)}; evaluate it on a dataset with those, in that order"
        )
    if info.size != made.image.size:
        raise DatasetError(
            f"{data}: its images are {made.image.size}x{made.image.size}, the model of {run} takes"
            f" {info.size}x{info.size}; run preprocess with image.size={info.size}"
        )
    manifest.require_enhancement(data, made, info.enhancement)


def _require_row(data: Path, made: Manifest, split: Split, image: int | None) -> None:
    rows = sum(made.counts[split].values())
    if image is not None and not 0 <= image < rows:
        raise DatasetError(
            f"--image {image}: the {split} split of {data} has {rows:,} rows; choose one of"
            f" 0..{rows - 1}"
        )


def _warn_of_leakage(info: RunInfo, made: Manifest, split: Split) -> None:
    if split is Split.TRAIN:
        log.warning(
            "the train split is what the model learnt from, oversampled and augmented as it is:"
            " its numbers say nothing of new faces"
        )
    if info.dataset_checksum != made.checksum:
        log.warning(
            "the model was trained on another dataset (checksum %s, this one: %s): it may have"
            " learnt from images of this split",
            info.dataset_checksum,
            made.checksum,
        )


def _predict(
    network: Any, data: Path, made: Manifest, split: Split, batch_size: int, gallery: Gallery
) -> tuple[npt.NDArray[np.float32], _Columns]:
    """Runs the model over a split, and shows the gallery every image.

    Returns:
        Its probabilities, of shape (rows, classes), and the label and origin of each row, all in
        the order in which the rows are stored.

    Raises:
        DatasetError: The images are not those that the manifest counts.
    """
    feed = Feed(data, split, batch_size, shuffle=False, seed=0)
    columns = (schema.LABEL, *schema.ORIGIN)
    given, parts, first = [], [], 0
    with tqdm(total=feed.rows, unit=" images", desc="evaluate", disable=None) as progress:
        for images, part in feed.raw(columns):
            given.append(network.predict_on_batch(images[..., np.newaxis]))
            parts.append(part)
            gallery.offer(Faces.of_batch(first, images, given[-1], part))
            first += len(images)
            progress.update(len(images))
    rows = {name: np.concatenate([part[name] for part in parts]) for name in columns}
    # The feed has counted the rows; this counts each class.
    labels = rows[schema.LABEL]
    found = {name: int((labels == label).sum()) for label, name in enumerate(made.classes)}
    if found != made.counts[split]:
        raise DatasetError(
            f"{data}: the {split} split holds {found}, its manifest says {made.counts[split]};"
            " run preprocess again"
        )
    return np.concatenate(given), rows


def _table(
    probabilities: npt.NDArray[np.float32], rows: _Columns, classes: Sequence[str]
) -> pa.Table:
    """What the model says of each image: one row per image, in the order of the dataset."""
    labels, guesses = rows[schema.LABEL], metrics.predictions(probabilities)
    names = pa.array(classes, pa.string())
    columns = {
        **{name: rows[name] for name in schema.ORIGIN},
        schema.LABEL: labels,
        "emotion": names.take(pa.array(labels)),
        "predicted": names.take(pa.array(guesses)),
        "correct": labels == guesses,
        "confidence": probabilities.max(axis=1),
        **{f"p_{name}": probabilities[:, label] for label, name in enumerate(classes)},
    }
    kinds = [
        *arrow_schema(schema.ORIGIN),
        (schema.LABEL, pa.int32()),
        ("emotion", pa.string()),
        ("predicted", pa.string()),
        ("correct", pa.bool_()),
        ("confidence", pa.float32()),
        *((f"p_{name}", pa.float32()) for name in classes),
    ]
    return pa.table(columns, pa.schema(kinds))


def _about(run: Path, info: RunInfo, data: Path, made: Manifest, split: Split) -> dict[str, Any]:
    return {
        "format": EVALUATION.format,
        "model": {
            "path": str(run.resolve()),
            "sha256": info.sha256,
            "dataset_checksum": info.dataset_checksum,
        },
        "dataset": {"path": str(data.resolve()), "checksum": made.checksum},
        "split": str(split),
        "versions": provenance.versions(*_PACKAGES),
    }


def summary(result: Metrics, output: str | Path) -> str:
    """The result of the job for a terminal: both tables, the overall numbers, what was written."""
    folder = storage.local_path(output)
    return "\n".join(
        [
            report.class_table(result),
            "",
            report.overall(result),
            "",
            report.confusion_table(result),
            "",
            report.confused_table(result),
            "",
            *(f"wrote {folder / name}" for name in OUTPUTS if (folder / name).exists()),
        ]
    )
