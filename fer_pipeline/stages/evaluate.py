"""From a trained run and a split of a dataset to an honest report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fer_pipeline import (
    calibration,
    copies,
    manifest,
    metrics,
    provenance,
    publication,
    report,
    schema,
    storage,
)
from fer_pipeline.accounting import Split
from fer_pipeline.config import Config
from fer_pipeline.copies import Copies
from fer_pipeline.errors import DatasetError, RunError
from fer_pipeline.gallery import Gallery
from fer_pipeline.learning.evaluation.inspection import Inspection
from fer_pipeline.learning.model import bundle, cost, run_folder
from fer_pipeline.learning.model.predictor import Predict, with_litert
from fer_pipeline.learning.model.run_folder import RunInfo
from fer_pipeline.manifest import Manifest
from fer_pipeline.metrics import Metrics
from fer_pipeline.publication import CONFIG, EVALUATION
from fer_pipeline.stages import pictures, predictions, runtime
from fer_pipeline.stages.runtime import Runtime

PREDICTIONS = EVALUATION.names[0]
OUTPUTS = (*EVALUATION.names, EVALUATION.mark, CONFIG)
"""What an evaluation consists of, in the order in which it is written.

The last two pictures are of a network with convolutions only.
"""

_PACKAGES = (
    *("tensorflow", "tensorflow-cpu", "keras", "ai-edge-litert"),
    *("numpy", "scikit-learn", "petastorm"),
)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: All numbers.
        copies: With and without the images that have an exact copy in training; None where the
            dataset cannot tell.
    """

    metrics: Metrics
    copies: Copies | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without NaN; what does not exist is None."""
        return {
            **self.metrics.to_dict(),
            "copies_in_training": self.copies and self.copies.to_dict(),
        }


def evaluate(
    model: str | Path | None,
    dataset: str | Path,
    split: Split,
    output: str | Path,
    config: Config,
    overwrite: bool = False,
    layers: Sequence[str] = (),
    image: int | None = None,
) -> Evaluation:
    """Evaluates a trained run on one split of a dataset.

    `metrics.json` is written after all that it speaks of and, in an overwrite, taken away before
    any of that is replaced: a folder that has one holds a whole evaluation of one model.

    Args:
        model: As for `run_folder.located`.
        dataset: The dataset's folder.
        split: The split.
        output: The folder for the evaluation.
        config: The configuration.
        overwrite: Whether an evaluation that is there may be replaced.
        layers: Whose outputs are drawn; by default those of `Inspection.chosen`.
        image: The row of the split for which they are drawn, from 0; by default the one that is
            recognised with the highest probability.

    Raises:
        RunError: The folder is no finished run, its network has no such layer, its model does not
            give probabilities, or LiteRT is configured and there is no such form of it.
        DatasetError: It is no dataset, or has other classes or another enhancement than the model,
            or its split is empty, broken or has no such row.
        StorageError: There is an evaluation already, or the folder holds what is not ours.
    """
    run = run_folder.located(model)
    data, folder = storage.path(dataset), storage.path(output)
    publication.claim(folder, EVALUATION, overwrite=overwrite)
    made = manifest.read(data)
    manifest.require(data, made, split)
    if made.rows_of(Split.TRAIN):
        # For the copies: what is missing there is told before all the work.
        manifest.require(data, made, Split.TRAIN)
    info, content = run_folder.read_model(run)
    network = bundle.from_bytes(content, info.network)
    # A report is of the model itself unless something else is asked for.
    litert = config.inference.backend == "litert"
    chosen = runtime.choose(run, info, content, "litert" if litert else "keras")
    predictions.require_fit(run, info, data, made)
    inspection = Inspection(network)
    drawn = inspection.chosen(layers)
    _require_row(data, made, split, image)
    predictions.warn_of_leakage(info, made, split)
    gallery = Gallery(len(made.classes), config.seed, image)
    probabilities, rows = predictions.predict(
        _answers(network, chosen, config),
        info,
        data,
        made,
        split,
        batch_size=config.inference.batch_size,
        flip=config.inference.flip_tta,
        offer=gallery.offer,
    )
    copied = predictions.copies_in_training(data, made, split, rows)
    labels = rows[schema.LABEL]
    try:
        result = _measured(probabilities, labels, copied, made, config.seed)
    except ValueError as error:
        raise RunError(f"{run}: its model cannot be evaluated: {error}") from error
    with publication.writing(folder, EVALUATION, overwrite=overwrite):
        _write(folder, predictions.table(probabilities, rows, copied, made.classes))
        title = _title(run, data, split, chosen, config)
        pictures.of_numbers(result.metrics, calibration.curve(labels, probabilities), title, folder)
        # A LiteRT file shows nothing of its layers.
        within = f"{title}; its layers as in Keras" if litert else title
        pictures.of_images(inspection, drawn, gallery, made.classes, title, within, folder)
        about = {
            **_about(run, info, data, made, split),
            "flip_tta": config.inference.flip_tta,
            "backend": chosen.said(),
            "versions": provenance.versions(*_PACKAGES),
        }
        text = json.dumps({**about, **result.to_dict()}, indent=2, allow_nan=False)
        storage.write_text(folder / EVALUATION.mark, text + "\n")
        config.write(folder / CONFIG)
        publication.clean(folder, EVALUATION, keep=())
    return result


def _require_row(data: Path, made: Manifest, split: Split, image: int | None) -> None:
    rows = sum(made.counts[split].values())
    if image is not None and not 0 <= image < rows:
        raise DatasetError(
            f"--image {image}: the {split} split of {data} has {rows:,} rows; choose one of"
            f" 0..{rows - 1}"
        )


def _measured(
    probabilities: npt.NDArray[np.float32],
    labels: npt.NDArray[Any],
    copied: npt.NDArray[np.bool_] | None,
    made: Manifest,
    seed: int,
) -> Evaluation:
    found = metrics.measure(labels, probabilities, made.classes, seed)
    if copied is None:
        return Evaluation(found, None)
    prevented = bool(made.config.get("split", {}).get("deduplicate", False))
    apart = copies.without(copied, found, labels, probabilities, made.classes, prevented=prevented)
    return Evaluation(found, apart)


def _write(folder: Path, table: pa.Table) -> None:
    """Writes the predictions, and with them ends an older evaluation."""
    with storage.replacing(folder / PREDICTIONS) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        # Without its mark, its configuration would not be ours.
        for name in (CONFIG, EVALUATION.mark):
            (folder / name).unlink(missing_ok=True)


def _answers(network: Any, chosen: Runtime, config: Config) -> Predict:
    if chosen.name == "keras":
        return predictions.of_network(network)
    return with_litert(chosen.content, config.inference.batch_size, cost.cores())


def _title(run: Path, data: Path, split: Split, chosen: Runtime, config: Config) -> str:
    form = "" if chosen.name == "keras" else f" as {chosen.format}"
    how = ", flips averaged" if config.inference.flip_tta else ""
    return f"model {run.resolve().name}{form} on the {split} split of {data.resolve().name}{how}"


def _about(run: Path, info: RunInfo, data: Path, made: Manifest, split: Split) -> dict[str, Any]:
    return {
        "format": EVALUATION.format,
        "model": {
            "path": str(run.resolve()),
            "sha256": info.sha256,
            "dataset_checksum": info.dataset_checksum,
            "size": info.size,
        },
        "dataset": {
            "path": str(data.resolve()),
            "checksum": made.checksum,
            "size": made.image.size,
        },
        "split": str(split),
    }


def summary(result: Evaluation, output: str | Path) -> str:
    """The result of the job for a terminal: the tables, the overall numbers, what was written."""
    folder = storage.path(output)
    sections = [
        report.class_table(result.metrics),
        report.overall(result.metrics),
        *([report.copies_table(result.copies)] if result.copies else []),
        report.coverage_table(result.metrics),
        report.confusion_table(result.metrics),
        report.confused_table(result.metrics),
        "\n".join(f"wrote {folder / name}" for name in OUTPUTS if storage.exists(folder / name)),
    ]
    return "\n\n".join(sections)
