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
"""Names of all files of an evaluation, in the order in which they are written."""

_PACKAGES = (
    "tensorflow",
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
        output: Folder for the files of the evaluation.
        config: Configuration; only `inference` and `seed` are used.
        overwrite: Whether an existing evaluation may be replaced.
        layers: Names of the layers to plot the feature maps of; by default the convolution and
            pooling layers that `LayerInspector` selects.
        image: Row of the split, from 0, of the image to plot the feature maps of; by default the
            correctly classified image with the highest probability.
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
    """Metrics of an evaluation.

    Attributes:
        metrics: Metrics of the evaluated split.
        overlap: Accuracy with and without the images that have an exact copy in the train
            split; None if the train split is evaluated or is empty.
    """

    metrics: Metrics
    overlap: OverlapReport | None

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as nested mappings of JSON types; undefined numbers are None."""
        return {
            **self.metrics.to_dict(),
            "copies_in_training": self.overlap and self.overlap.to_dict(),
        }


@dataclass(frozen=True)
class _Inputs:
    """The loaded inputs of an evaluation.

    Attributes:
        dataset: Dataset with the split to evaluate on.
        model: Trained model.
        network: Keras model, also if a LiteRT file makes the predictions.
        backend: Backend that makes the predictions, and the content of its model file.
        inspector: Inspector of the layers of `network`.
        layers: Names of the layers to plot the feature maps of.
    """

    dataset: StoredDataset
    model: TrainedModel
    network: Any
    backend: InferenceBackend
    inspector: LayerInspector
    layers: Sequence[str]


@dataclass(frozen=True)
class _Predictions:
    """The predictions for all rows of a split.

    Attributes:
        probabilities: Probability of each class, float32 of shape (rows, classes).
        rows: Other columns of the rows, such as the label, by name.
        is_in_training: Whether each row has an exact copy in the train split, bool of shape
            (rows,); None if the train split is evaluated or is empty.
        samples: Images selected for the plots of single images.
    """

    probabilities: npt.NDArray[np.float32]
    rows: Columns
    is_in_training: npt.NDArray[np.bool_] | None
    samples: SampleSelector


def evaluate(request: EvaluationRequest) -> Evaluation:
    """Evaluate a trained model on one split of a dataset, and write metrics, plots and predictions.

    `metrics.json` is written last. If an evaluation is replaced, the old `metrics.json` is deleted
    before any other file is replaced. Therefore a folder with `metrics.json` always holds one
    complete evaluation.

    Args:
        request: Model, dataset, split, output folder and options.

    Returns:
        The metrics.

    Raises:
        RunError: The model's folder is not a finished run, a requested layer does not exist, the
            model does not return probabilities, or LiteRT is configured and the run has no LiteRT
            export.
        DatasetError: The dataset's folder is not a dataset, its classes or its image enhancement
            differ from the model's, the split is empty or damaged, or a requested row does not
            exist.
        StorageError: The folder holds an evaluation that may not be replaced, or files that do not
            belong to an evaluation.
    """
    output_folder = OutputFolder(
        parse_path(request.output), EVALUATION, overwrite=request.overwrite
    )
    output_folder.ensure_writable()
    inputs = _load_inputs(request)
    predictions = _predict_split(inputs, request)
    try:
        evaluation = _compute_metrics(inputs.dataset, predictions, request.config.seed)
    except ValueError as error:
        raise RunError(f"{inputs.model.folder}: its model cannot be evaluated: {error}") from error
    with output_folder.lock_for_writing():
        _write_predictions(output_folder, predictions, inputs.dataset.classes)
        _write_plots(output_folder.path, request, inputs, predictions, evaluation.metrics)
        commit_content = {**_describe_evaluation(inputs, request), **evaluation.to_dict()}
        output_folder.commit(
            json.dumps(commit_content, indent=2, allow_nan=False) + "\n", request.config.write
        )
    return evaluation


def _load_inputs(request: EvaluationRequest) -> _Inputs:
    """Load the dataset and the model, and check that they match and that the request is valid.

    A warning is logged if the model may have been trained on images of the split.

    Raises:
        RunError: The model's folder is not a finished run, a requested layer does not exist, or
            LiteRT is configured and the run has no LiteRT export.
        DatasetError: The dataset's folder is not a dataset, its classes or its image enhancement
            differ from the model's, the split is empty or damaged, or the requested row does not
            exist.
    """
    dataset = StoredDataset.open(request.dataset)
    dataset.require_split(request.split)
    dataset.warn_about_single_class(request.split)
    if dataset.row_count(Split.TRAIN):
        # The train split is read last, to find exact copies. Missing files are reported before the
        # predictions, which take long.
        dataset.require_split(Split.TRAIN)
    model = TrainedModel.open(request.model)
    content = model.read_content()
    network = serving_model.load_model_from_bytes(content, model.info.network)
    # Unlike score, evaluate runs the Keras model unless LiteRT is configured explicitly.
    use_litert = request.config.inference.backend == "litert"
    inference_backend = backend.choose_backend(model, content, "litert" if use_litert else "keras")
    predict_split.require_compatible_dataset(model, dataset)
    inspector = LayerInspector(network)
    layers = inspector.select_layers(request.layers)
    _require_row(dataset, request.split, request.image)
    predict_split.warn_about_leakage(model, dataset, request.split)
    return _Inputs(dataset, model, network, inference_backend, inspector, layers)


def _require_row(dataset: StoredDataset, split: Split, image: int | None) -> None:
    """Check that the split has the row of the requested image.

    Args:
        dataset: Dataset with the split.
        split: Split to evaluate on.
        image: Row number of the image, from 0; None if no image is requested.

    Raises:
        DatasetError: The row does not exist.
    """
    row_count = dataset.row_count(split)
    if image is not None and not 0 <= image < row_count:
        raise DatasetError(
            f"--image {image}: the {split} split of {dataset.folder} has {row_count:,} rows; choose"
            f" one of 0..{row_count - 1}"
        )


def _predict_split(inputs: _Inputs, request: EvaluationRequest) -> _Predictions:
    """Predict all images of the split, and find those with an exact copy in the train split.

    The images for the plots are selected in the same pass.
    """
    dataset, model, config = inputs.dataset, inputs.model, request.config
    samples = SampleSelector(dataset.classes, config.seed, request.image)
    probabilities, rows = predict_split.predict_rows(
        _make_predict_fn(inputs, config),
        model,
        dataset,
        request.split,
        batch_size=config.inference.batch_size,
        flip_tta=config.inference.flip_tta,
        reader=config.loader.reader,
        on_batch=samples.update,
    )
    in_training = predict_split.find_copies_in_training(dataset, request.split, rows)
    return _Predictions(probabilities, rows, in_training, samples)


def _make_predict_fn(inputs: _Inputs, config: Config) -> PredictFn:
    """Return the function that predicts a batch of images with the backend, Keras or LiteRT."""
    if inputs.backend.name == "keras":
        return predict_split.make_single_batch_predict_fn(inputs.network)
    return make_litert_predict_fn(
        inputs.backend.content, config.inference.batch_size, timing.count_available_cores()
    )


def _compute_metrics(dataset: StoredDataset, predictions: _Predictions, seed: int) -> Evaluation:
    """Compute the metrics of all images, and of those without an exact copy in the train split.

    If the train split is evaluated or is empty, only the metrics of all images are computed.

    Args:
        dataset: Dataset that was evaluated.
        predictions: Predictions for all rows of the split.
        seed: Seed of the bootstrap samples for the confidence intervals.

    Raises:
        ValueError: The model did not return probabilities.
    """
    labels, probabilities = predictions.rows[schema.LABEL], predictions.probabilities
    metrics = classification.compute_metrics(labels, probabilities, dataset.classes, seed)
    if predictions.is_in_training is None:
        return Evaluation(metrics, None)
    overlap = train_test_overlap.compute_overlap_report(
        predictions.is_in_training,
        metrics,
        labels,
        probabilities,
        deduplicated=bool(dataset.manifest.config.get("split", {}).get("deduplicate", False)),
    )
    return Evaluation(metrics, overlap)


def _write_predictions(
    output_folder: OutputFolder, predictions: _Predictions, classes: Sequence[str]
) -> None:
    """Write the predictions, and delete `metrics.json` of the evaluation that is being replaced.

    First the predictions are written to a temporary file, then `metrics.json` is deleted, and then
    the temporary file is renamed. So the old evaluation stays complete if writing fails.
    """
    table = predict_split.make_predictions_table(
        predictions.probabilities, predictions.rows, predictions.is_in_training, classes
    )
    with storage.atomic_write(output_folder.path / EvaluationFile.PREDICTIONS) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        output_folder.invalidate_old_output()


def _write_plots(
    folder: Path,
    request: EvaluationRequest,
    inputs: _Inputs,
    predictions: _Predictions,
    metrics: Metrics,
) -> None:
    """Save all plots of the evaluation, and a CSV file of the worst mistakes.

    The worst mistakes are the wrongly classified images with the highest confidence.
    """
    title = _format_title(request, inputs)
    labels = predictions.rows[schema.LABEL]
    curve = calibration.compute_accuracy_coverage_curve(labels, predictions.probabilities)
    evaluation_plots.plot_metrics(metrics, curve, title, folder)
    # The layers of a LiteRT file cannot be inspected, so the Keras model's layers are plotted.
    is_keras = inputs.backend.name == "keras"
    evaluation_plots.plot_samples(predictions.samples, title, folder)
    evaluation_plots.plot_layers(
        inputs.inspector,
        inputs.layers,
        predictions.samples,
        title if is_keras else f"{title}; its layers as in Keras",
        folder,
    )


def _format_title(request: EvaluationRequest, inputs: _Inputs) -> str:
    """Return the title of the plots.

    It names the model, its format if that is not Keras's, the split, the dataset, and flip TTA if
    it is used.
    """
    model_format = "" if inputs.backend.name == "keras" else f" as {inputs.backend.format}"
    flip_tta = ", with flip TTA" if request.config.inference.flip_tta else ""
    return (
        f"model {inputs.model.name}{model_format} on the {request.split} split of"
        f" {inputs.dataset.name}{flip_tta}"
    )


def _describe_evaluation(inputs: _Inputs, request: EvaluationRequest) -> dict[str, Any]:
    """Return the part of `metrics.json` that describes the model, the dataset and the options."""
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
    """Return the report of the job: tables of the metrics, and the paths of the written files.

    Files that were not written are left out, such as the feature maps if no layer was requested.

    Args:
        evaluation: Metrics of the evaluation.
        output: Folder of the evaluation.
    """
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
