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

from fer_pipeline.config import Config
from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.manifest import Manifest
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError, RunError
from fer_pipeline.io import storage, versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import CONFIG_FILE, EVALUATION, EvaluationFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.analysis import timing
from fer_pipeline.learning.analysis.layer_inspector import LayerInspector
from fer_pipeline.learning.inference import backend, predict_split, serving_model, trained_model
from fer_pipeline.learning.inference.backend import InferenceBackend
from fer_pipeline.learning.inference.predictor import PredictFn, make_litert_predict_fn
from fer_pipeline.learning.inference.trained_model import ModelInfo, TrainedModel
from fer_pipeline.metrics import calibration, classification, tables, train_test_overlap
from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.samples import SampleSelector
from fer_pipeline.metrics.train_test_overlap import OverlapReport
from fer_pipeline.pipelines import evaluation_plots

OUTPUT_FILES = (*EvaluationFile, CONFIG_FILE)
"""The files of an evaluation, in the order in which they are written."""

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
    copies: OverlapReport | None

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
    run = trained_model.resolve_model_path(model)
    data = parse_path(dataset)
    output_folder = OutputFolder(parse_path(output), EVALUATION, overwrite=overwrite)
    output_folder.ensure_writable()
    stored = StoredDataset.open(data)
    made = stored.manifest
    stored.require_split(split)
    if stored.row_count(Split.TRAIN):
        # For the copies: what is missing there is told before all the work.
        stored.require_split(Split.TRAIN)
    trained = TrainedModel.open(run)
    info, content = trained.info, trained.read_content()
    network = serving_model.load_model_content(content, info.network)
    # A report is of the model itself unless something else is asked for.
    litert = config.inference.backend == "litert"
    chosen = backend.choose_backend(trained, content, "litert" if litert else "keras")
    predict_split.require_compatible(trained, stored)
    inspection = LayerInspector(network)
    drawn = inspection.select_layers(layers)
    _require_row(data, made, split, image)
    predict_split.warn_about_leakage(trained, stored, split)
    gallery = SampleSelector(made.classes, config.seed, image)
    probabilities, rows = predict_split.predict(
        _answers(network, chosen, config),
        trained,
        stored,
        split,
        batch_size=config.inference.batch_size,
        flip_tta=config.inference.flip_tta,
        on_batch=gallery.update,
    )
    copied = predict_split.find_copies_in_training(stored, split, rows)
    labels = rows[schema.LABEL]
    try:
        result = _measured(probabilities, labels, copied, made, config.seed)
    except ValueError as error:
        raise RunError(f"{run}: its model cannot be evaluated: {error}") from error
    with output_folder.writing():
        _write(
            output_folder,
            predict_split.make_predictions_table(probabilities, rows, copied, made.classes),
        )
        title = _title(run, data, split, chosen, config)
        evaluation_plots.plot_metrics(
            result.metrics,
            calibration.compute_accuracy_coverage(labels, probabilities),
            title,
            output_folder.path,
        )
        evaluation_plots.plot_samples(gallery, title, output_folder.path)
        # A LiteRT file does not expose the outputs of its layers.
        inner_title = f"{title}; its layers as in Keras" if litert else title
        evaluation_plots.plot_layers(inspection, drawn, gallery, inner_title, output_folder.path)
        about = {
            **_about(run, info, data, made, split),
            "flip_tta": config.inference.flip_tta,
            "backend": chosen.to_dict(),
            "versions": versions.package_versions(*_PACKAGES),
        }
        text = json.dumps({**about, **result.to_dict()}, indent=2, allow_nan=False)
        output_folder.commit(text + "\n", config.write)
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
    found = classification.compute_metrics(labels, probabilities, made.classes, seed)
    if copied is None:
        return Evaluation(found, None)
    deduplicated = bool(made.config.get("split", {}).get("deduplicate", False))
    apart = train_test_overlap.exclude_overlap(
        copied, found, labels, probabilities, deduplicated=deduplicated
    )
    return Evaluation(found, apart)


def _write(output_folder: OutputFolder, table: pa.Table) -> None:
    """Write the predictions in place of those of an older evaluation, which ends with that."""
    with storage.atomic_write(output_folder.path / EvaluationFile.PREDICTIONS) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        output_folder.retract()


def _answers(network: Any, chosen: InferenceBackend, config: Config) -> PredictFn:
    if chosen.name == "keras":
        return predict_split.keras_predict_fn(network)
    return make_litert_predict_fn(
        chosen.content, config.inference.batch_size, timing.available_cores()
    )


def _title(run: Path, data: Path, split: Split, chosen: InferenceBackend, config: Config) -> str:
    form = "" if chosen.name == "keras" else f" as {chosen.format}"
    how = ", flips averaged" if config.inference.flip_tta else ""
    return f"model {run.resolve().name}{form} on the {split} split of {data.resolve().name}{how}"


def _about(run: Path, info: ModelInfo, data: Path, made: Manifest, split: Split) -> dict[str, Any]:
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
    folder = parse_path(output)
    sections = [
        tables.format_class_table(result.metrics),
        tables.format_overall_metrics(result.metrics),
        *([tables.format_overlap_table(result.copies)] if result.copies else []),
        tables.format_coverage_table(result.metrics),
        tables.format_confusion_table(result.metrics),
        tables.format_confused_pairs(result.metrics),
        "\n".join(
            f"wrote {folder / name}" for name in OUTPUT_FILES if storage.exists(folder / name)
        ),
    ]
    return "\n\n".join(sections)
