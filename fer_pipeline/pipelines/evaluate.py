"""Evaluation of a trained model on one split of a dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from fer_pipeline.config import Config
from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError, RunError
from fer_pipeline.io import storage, versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import CONFIG_FILE, EVALUATION, EvaluationFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.analysis import timing
from fer_pipeline.learning.analysis.layer_inspector import LayerInspector
from fer_pipeline.learning.inference import backend, predict_split, serving_model
from fer_pipeline.learning.inference.backend import InferenceBackend
from fer_pipeline.learning.inference.predict_split import Columns
from fer_pipeline.learning.inference.predictor import PredictFn, make_litert_predict_fn
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.metrics import calibration, classification, tables, train_test_overlap
from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.samples import SampleSelector
from fer_pipeline.metrics.train_test_overlap import OverlapReport
from fer_pipeline.pipelines import evaluation_plots

OUTPUT_FILES = (*EvaluationFile, CONFIG_FILE)
"""The files of an evaluation, in the order in which they are written."""

_PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "ai-edge-litert",
    "numpy",
    "scikit-learn",
    "petastorm",
)


@dataclass(frozen=True)
class EvaluationRequest:
    """Arguments of an evaluation.

    Attributes:
        model: Folder of a finished run, or name of a bundled model; None is the default model.
        dataset: Folder of the dataset.
        split: Split to evaluate on.
        output: Folder of the report.
        config: Configuration, of which `inference` and `seed` matter.
        overwrite: Whether an existing evaluation may be replaced.
        layers: Names of the layers whose feature maps are plotted; by default the convolutions and
            poolings that `LayerInspector` selects.
        image: Row of the split whose feature maps are plotted, from 0; by default the image that is
            recognised with the highest probability.
    """

    model: str | Path | None
    dataset: str | Path
    split: Split
    output: str | Path
    config: Config
    overwrite: bool = False
    layers: Sequence[str] = ()
    image: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """Numbers of an evaluation.

    Attributes:
        metrics: All metrics.
        overlap: Accuracy with and without the images that have an exact copy in training; None for
            the train split, and if the dataset has no train split.
    """

    metrics: Metrics
    overlap: OverlapReport | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON; undefined numbers are None, never NaN."""
        return {
            **self.metrics.to_dict(),
            "copies_in_training": self.overlap and self.overlap.to_dict(),
        }


@dataclass(frozen=True)
class _Inputs:
    dataset: StoredDataset
    model: TrainedModel
    network: Any
    backend: InferenceBackend
    inspector: LayerInspector
    layers: Sequence[str]


@dataclass(frozen=True)
class _Predictions:
    probabilities: npt.NDArray[np.float32]
    rows: Columns
    in_training: npt.NDArray[np.bool_] | None
    samples: SampleSelector


def evaluate(request: EvaluationRequest) -> Evaluation:
    """Evaluate a trained model on one split of a dataset, and write the report.

    `metrics.json` is written last; in an overwrite it is deleted before any other file is replaced.
    A folder that has it holds a whole evaluation of one model.

    Args:
        request: Arguments of the evaluation.

    Raises:
        RunError: The model's folder is no finished run, its network has no such layer, it does not
            give probabilities, or LiteRT is configured and the run has no LiteRT export.
        DatasetError: The folder is no dataset, has other classes or another enhancement than the
            model, or its split is empty, damaged or has no such row.
        StorageError: There is an evaluation already, or the folder holds foreign files.
    """
    output_folder = OutputFolder(
        parse_path(request.output), EVALUATION, overwrite=request.overwrite
    )
    output_folder.ensure_writable()
    inputs = _load_inputs(request)
    predictions = _predict(inputs, request)
    try:
        evaluation = _measure(inputs.dataset, predictions, request.config.seed)
    except ValueError as error:
        raise RunError(f"{inputs.model.folder}: its model cannot be evaluated: {error}") from error
    with output_folder.lock_for_writing():
        _write_predictions(output_folder, predictions, inputs.dataset.classes)
        _write_plots(output_folder.path, request, inputs, predictions, evaluation.metrics)
        document = {**_describe_inputs(inputs, request), **evaluation.to_dict()}
        output_folder.commit(
            json.dumps(document, indent=2, allow_nan=False) + "\n", request.config.write
        )
    return evaluation


def _load_inputs(request: EvaluationRequest) -> _Inputs:
    dataset = StoredDataset.open(request.dataset)
    dataset.require_split(request.split)
    if dataset.row_count(Split.TRAIN):
        # Needed at the end, for the exact copies: a missing file is an error before the long work.
        dataset.require_split(Split.TRAIN)
    model = TrainedModel.open(request.model)
    content = model.read_content()
    network = serving_model.load_model_content(content, model.info.network)
    # Unlike score, a report is of the Keras model unless LiteRT is asked for.
    use_litert = request.config.inference.backend == "litert"
    inference_backend = backend.choose_backend(model, content, "litert" if use_litert else "keras")
    predict_split.require_compatible_dataset(model, dataset)
    inspector = LayerInspector(network)
    layers = inspector.select_layers(request.layers)
    _require_row(dataset, request.split, request.image)
    predict_split.warn_about_leakage(model, dataset, request.split)
    return _Inputs(dataset, model, network, inference_backend, inspector, layers)


def _require_row(dataset: StoredDataset, split: Split, image: int | None) -> None:
    row_count = dataset.row_count(split)
    if image is not None and not 0 <= image < row_count:
        raise DatasetError(
            f"--image {image}: the {split} split of {dataset.folder} has {row_count:,} rows; choose"
            f" one of 0..{row_count - 1}"
        )


def _predict(inputs: _Inputs, request: EvaluationRequest) -> _Predictions:
    dataset, model, config = inputs.dataset, inputs.model, request.config
    samples = SampleSelector(dataset.classes, config.seed, request.image)
    probabilities, rows = predict_split.predict_rows(
        _make_predict_fn(inputs, config),
        model,
        dataset,
        request.split,
        batch_size=config.inference.batch_size,
        flip_tta=config.inference.flip_tta,
        on_batch=samples.update,
    )
    in_training = predict_split.find_copies_in_training(dataset, request.split, rows)
    return _Predictions(probabilities, rows, in_training, samples)


def _make_predict_fn(inputs: _Inputs, config: Config) -> PredictFn:
    if inputs.backend.name == "keras":
        return predict_split.make_single_batch_predict_fn(inputs.network)
    return make_litert_predict_fn(
        inputs.backend.content, config.inference.batch_size, timing.count_available_cores()
    )


def _measure(dataset: StoredDataset, predictions: _Predictions, seed: int) -> Evaluation:
    labels, probabilities = predictions.rows[schema.LABEL], predictions.probabilities
    metrics = classification.compute_metrics(labels, probabilities, dataset.classes, seed)
    if predictions.in_training is None:
        return Evaluation(metrics, None)
    overlap = train_test_overlap.compute_overlap_report(
        predictions.in_training,
        metrics,
        labels,
        probabilities,
        deduplicated=bool(dataset.manifest.config.get("split", {}).get("deduplicate", False)),
    )
    return Evaluation(metrics, overlap)


def _write_predictions(
    output_folder: OutputFolder, predictions: _Predictions, classes: Sequence[str]
) -> None:
    """Write the predictions in place of those of an older evaluation, which ends with that."""
    table = predict_split.make_predictions_table(
        predictions.probabilities, predictions.rows, predictions.in_training, classes
    )
    with storage.atomic_write(output_folder.path / EvaluationFile.PREDICTIONS) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        output_folder.delete_commit_file()


def _write_plots(
    folder: Path,
    request: EvaluationRequest,
    inputs: _Inputs,
    predictions: _Predictions,
    metrics: Metrics,
) -> None:
    title = _make_title(request, inputs)
    labels = predictions.rows[schema.LABEL]
    curve = calibration.compute_accuracy_coverage(labels, predictions.probabilities)
    evaluation_plots.plot_metrics(metrics, curve, title, folder)
    # The layers of a LiteRT file cannot be inspected.
    is_keras = inputs.backend.name == "keras"
    evaluation_plots.plot_samples(predictions.samples, title, folder)
    evaluation_plots.plot_layers(
        inputs.inspector,
        inputs.layers,
        predictions.samples,
        title if is_keras else f"{title}; its layers as in Keras",
        folder,
    )


def _make_title(request: EvaluationRequest, inputs: _Inputs) -> str:
    model_format = "" if inputs.backend.name == "keras" else f" as {inputs.backend.format}"
    flips = ", flips averaged" if request.config.inference.flip_tta else ""
    return (
        f"model {inputs.model.name}{model_format} on the {request.split} split of"
        f" {inputs.dataset.name}{flips}"
    )


def _describe_inputs(inputs: _Inputs, request: EvaluationRequest) -> dict[str, Any]:
    dataset, model = inputs.dataset, inputs.model
    return {
        "format": EVALUATION.format,
        "model": {
            "path": str(model.folder.resolve()),
            "sha256": model.info.sha256,
            "dataset_checksum": model.info.dataset_checksum,
            "size": model.info.size,
        },
        "dataset": {
            "path": str(dataset.folder.resolve()),
            "checksum": dataset.checksum,
            "size": dataset.image_size,
        },
        "split": str(request.split),
        "flip_tta": request.config.inference.flip_tta,
        "backend": inputs.backend.to_dict(),
        "versions": versions.collect_package_versions(*_PACKAGES),
    }


def format_report(evaluation: Evaluation, output: str | Path) -> str:
    """Return the job's text for the terminal: the tables, and the files that were written."""
    folder = parse_path(output)
    metrics, overlap = evaluation.metrics, evaluation.overlap
    files = [folder / name for name in OUTPUT_FILES]
    sections = [
        tables.format_class_table(metrics),
        tables.format_overall_metrics(metrics),
        *([tables.format_overlap_table(overlap)] if overlap else []),
        tables.format_coverage_table(metrics),
        tables.format_confusion_table(metrics),
        tables.format_confused_pairs(metrics),
        "\n".join(f"wrote {file}" for file in files if storage.exists(file)),
    ]
    return "\n\n".join(sections)
