"""Predictions, metrics, plots and files of an evaluation whose inputs have been checked."""

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
from fer_pipeline.errors import RunError
from fer_pipeline.io import storage, versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import EVALUATION, EvaluationFile
from fer_pipeline.learning.analysis import timing
from fer_pipeline.learning.analysis.layer_inspector import LayerInspector
from fer_pipeline.learning.inference import predict_split, serving_model
from fer_pipeline.learning.inference.backend import InferenceBackend
from fer_pipeline.learning.inference.predict_split import Columns
from fer_pipeline.learning.inference.predictor import PredictFn, make_litert_predict_fn
from fer_pipeline.metrics import calibration, classification, train_test_overlap
from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.samples import SampleSelector
from fer_pipeline.metrics.train_test_overlap import OverlapReport
from fer_pipeline.pipelines import evaluation_plots
from fer_pipeline.pipelines.evaluate import EvaluationInputs, EvaluationRequest

_PACKAGES = (
    "tensorflow",
    "keras",
    "ai-edge-litert",
    "numpy",
    "scikit-learn",
    "petastorm",
)


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
class _Layers:
    """The loaded network of an evaluation, and its layers to plot.

    Attributes:
        network: Keras model, also if a LiteRT file makes the predictions.
        inspector: Inspector of the layers of `network`.
        names: Names of the layers to plot the feature maps of.
    """

    network: Any
    inspector: LayerInspector
    names: Sequence[str]


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


def evaluate_inputs(
    request: EvaluationRequest, inputs: EvaluationInputs, output_folder: OutputFolder
) -> Evaluation:
    """Evaluate a model, and write metrics, plots and predictions; see `evaluate.evaluate`.

    Args:
        request: Arguments of the evaluation.
        inputs: Checked inputs of the evaluation.
        output_folder: Folder of the evaluation.

    Raises:
        RunError: A requested layer does not exist, the model cannot be loaded, or it does not
            return probabilities.
        DatasetError: The split is damaged.
        StorageError: The folder cannot be written.
    """
    layers = _load_layers(request, inputs)
    predictions = _predict_split(inputs, layers.network, request)
    try:
        evaluation = _compute_metrics(inputs.dataset, predictions, request.config.seed)
    except ValueError as error:
        raise RunError(f"{inputs.model.folder}: its model cannot be evaluated: {error}") from error
    with output_folder.lock_for_writing():
        _write_predictions(output_folder, predictions, inputs.dataset.classes)
        title = _format_title(request, inputs)
        _plot_metrics(output_folder.path, title, predictions, evaluation.metrics)
        _plot_images(output_folder.path, title, inputs, layers, predictions)
        commit_content = {**_describe_evaluation(inputs, request), **evaluation.to_dict()}
        output_folder.commit(
            json.dumps(commit_content, indent=2, allow_nan=False) + "\n", request.config.write
        )
    return evaluation


def _load_layers(request: EvaluationRequest, inputs: EvaluationInputs) -> _Layers:
    """Load the network, and select the layers to plot.

    Raises:
        RunError: The model cannot be loaded, or a requested layer does not exist.
    """
    network = serving_model.load_model_from_bytes(inputs.content, inputs.model.info.network)
    inspector = LayerInspector(network)
    return _Layers(network, inspector, inspector.select_layers(request.layers))


def _predict_split(
    inputs: EvaluationInputs, network: Any, request: EvaluationRequest
) -> _Predictions:
    """Predict all images of the split, and find those with an exact copy in the train split.

    The images for the plots are selected in the same pass.
    """
    dataset, model, config = inputs.dataset, inputs.model, request.config
    samples = SampleSelector(dataset.classes, config.seed, request.image)
    probabilities, rows = predict_split.predict_rows(
        _make_predict_fn(inputs.backend, network, config),
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


def _make_predict_fn(
    inference_backend: InferenceBackend, network: Any, config: Config
) -> PredictFn:
    """Return the function that predicts a batch of images with the backend, Keras or LiteRT."""
    if inference_backend.name == "keras":
        return predict_split.make_single_batch_predict_fn(network)
    return make_litert_predict_fn(
        inference_backend.content, config.inference.batch_size, timing.count_available_cores()
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


def _plot_metrics(folder: Path, title: str, predictions: _Predictions, metrics: Metrics) -> None:
    """Save the plots of the metrics."""
    labels = predictions.rows[schema.LABEL]
    curve = calibration.compute_accuracy_coverage_curve(labels, predictions.probabilities)
    evaluation_plots.plot_metrics(metrics, curve, title, folder)


def _plot_images(
    folder: Path, title: str, inputs: EvaluationInputs, layers: _Layers, predictions: _Predictions
) -> None:
    """Save the plots of single images and of layers, and a CSV file of the worst mistakes.

    The worst mistakes are the wrongly classified images with the highest confidence.
    """
    evaluation_plots.plot_samples(predictions.samples, title, folder)
    # The layers of a LiteRT file cannot be inspected, so the Keras model's layers are plotted.
    is_keras = inputs.backend.name == "keras"
    evaluation_plots.plot_layers(
        layers.inspector,
        layers.names,
        predictions.samples,
        title if is_keras else f"{title}; its layers as in Keras",
        folder,
    )


def _format_title(request: EvaluationRequest, inputs: EvaluationInputs) -> str:
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


def _describe_evaluation(inputs: EvaluationInputs, request: EvaluationRequest) -> dict[str, Any]:
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
