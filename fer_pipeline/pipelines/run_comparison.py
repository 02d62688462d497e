"""Predictions, speeds and report of a comparison whose models have been checked."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.config import Config
from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import RunError
from fer_pipeline.io import versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import COMPARISON, ComparisonFile
from fer_pipeline.learning.analysis import timing
from fer_pipeline.learning.analysis.network_summary import summarize_network
from fer_pipeline.learning.inference import dataset_checks, predict_split
from fer_pipeline.learning.inference.predict_split import Columns
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.metrics import classification, significance
from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.comparison import (
    BenchmarkSettings,
    Comparison,
    Cost,
    ModelResult,
    shorten_to_unique_names,
)
from fer_pipeline.metrics.inputs import predict_classes
from fer_pipeline.metrics.samples import EvaluatedImages
from fer_pipeline.plots import comparison as comparison_plots

log = logging.getLogger(__name__)

_PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "scipy",
    "scikit-learn",
    "petastorm",
)

# The time of a forward pass does not depend on the content of the images, so a few are enough.
_TIMED_BATCH_COUNT = 8


@dataclass(frozen=True)
class _EvaluatedModel:
    """A model with its predictions for the split.

    Attributes:
        name: Name of the model in the comparison.
        model: Trained model.
        network: Keras model that was loaded from `model`.
        probabilities: Predicted probabilities, of shape (rows, classes).
        rows: Label and origin of each row.
        metrics: Metrics on all rows.
        timing_pixels: First images of the split in the size of the model, for the measurement of
            its speed, uint8 of shape (n, size, size).
    """

    name: str
    model: TrainedModel
    network: Any
    probabilities: npt.NDArray[np.float32]
    rows: Columns
    metrics: Metrics
    timing_pixels: npt.NDArray[np.uint8]


def compare_models(
    models: Sequence[TrainedModel],
    dataset: StoredDataset,
    split: Split,
    config: Config,
    output_folder: OutputFolder,
) -> Comparison:
    """Compare models on one split, and write the report; see `compare.compare`.

    Args:
        models: Models that fit the dataset.
        dataset: Dataset to evaluate the models on.
        split: Split to evaluate the models on.
        config: Configuration. Only the section `inference` and the key `seed` are used.
        output_folder: Folder of the comparison.

    Raises:
        RunError: A model cannot be loaded, or does not predict probabilities.
        DatasetError: The split is damaged.
        StorageError: The folder cannot be written.
    """
    names = shorten_to_unique_names([model.folder.resolve() for model in models])
    evaluated_models = [
        _evaluate_model(name, model, dataset, split, config)
        for name, model in zip(names, models, strict=True)
    ]
    is_in_training = predict_split.find_copies_in_training(dataset, split, evaluated_models[0].rows)
    comparison = _time_and_compare_models(evaluated_models, is_in_training, dataset.classes, config)
    with output_folder.lock_for_writing():
        output_folder.invalidate_old_output()
        title = f"accuracy against cost on the {split} split of {dataset.name}"
        plot_file = output_folder.path / ComparisonFile.ACCURACY_COST
        comparison_plots.draw_accuracy_cost(comparison, title, plot_file)
        document = {**_describe_evaluation(dataset, split), **comparison.to_dict()}
        output_folder.commit(json.dumps(document, indent=2, allow_nan=False) + "\n", config.write)
    return comparison


def _evaluate_model(
    name: str, model: TrainedModel, dataset: StoredDataset, split: Split, config: Config
) -> _EvaluatedModel:
    """Load the network of a model, predict all rows of the split, and compute the metrics.

    Args:
        name: Name of the model in the comparison.
        model: Trained model.
        dataset: Dataset to evaluate the model on.
        split: Split to evaluate the model on.
        config: Configuration. The section `inference` and the key `seed`, for the bootstrap
            samples of the confidence intervals, are used.

    Raises:
        RunError: The model does not predict probabilities.
    """
    log.info("%s: evaluating %s", name, model.folder)
    dataset_checks.warn_about_leakage(model, dataset, split)
    network = model.load_network()
    batches: list[npt.NDArray[np.uint8]] = []

    def store_first_batches(images: EvaluatedImages) -> None:
        """Store the pixels of the first `_TIMED_BATCH_COUNT` batches, for measuring the speed.

        Args:
            images: Next batch of evaluated images.
        """
        if len(batches) < _TIMED_BATCH_COUNT:
            batches.append(images.pixels)

    probabilities, rows = predict_split.predict_rows(
        predict_split.make_single_batch_predict_fn(network),
        model,
        dataset,
        split,
        batch_size=config.inference.batch_size,
        flip_tta=config.inference.flip_tta,
        reader=config.loader.reader,
        on_batch=store_first_batches,
    )
    try:
        metrics = classification.compute_metrics(
            rows[schema.LABEL], probabilities, dataset.classes, config.seed
        )
    except ValueError as error:
        raise RunError(f"{model.folder}: its model cannot be evaluated: {error}") from error
    timing_pixels = np.concatenate(batches)
    return _EvaluatedModel(name, model, network, probabilities, rows, metrics, timing_pixels)


def _time_and_compare_models(
    evaluated_models: Sequence[_EvaluatedModel],
    is_in_training: npt.NDArray[np.bool_] | None,
    classes: Sequence[str],
    config: Config,
) -> Comparison:
    """Measure the models' speeds, test their accuracies for differences, and return a comparison.

    The comparison also contains the metrics of each model, and the number of evaluated images that
    have an exact copy in the train split.

    Args:
        evaluated_models: Models with their predictions.
        is_in_training: Whether each row has an exact copy in the train split, bool of shape
            (rows,); None if the train split is evaluated or is empty.
        classes: Names of the classes.
        config: Configuration; only the section `inference` is used.
    """
    batch_size = config.inference.batch_size
    log.info("timing forward passes")
    speeds = timing.measure_images_per_second(
        [model.network for model in evaluated_models],
        [model.timing_pixels for model in evaluated_models],
        batch_size,
    )
    results = [
        _build_model_result(model, speed, is_in_training, classes)
        for model, speed in zip(evaluated_models, speeds, strict=True)
    ]
    is_correct = [
        predict_classes(model.probabilities) == model.rows[schema.LABEL]
        for model in evaluated_models
    ]
    settings = BenchmarkSettings(
        min(batch_size, len(evaluated_models[0].timing_pixels)),
        timing.count_available_cores(),
        config.inference.flip_tta,
    )
    pairs = significance.compare_classifiers(np.stack(is_correct))
    overlap_count = None if is_in_training is None else int(is_in_training.sum())
    return Comparison(tuple(results), pairs, settings, overlap_count)


def _build_model_result(
    evaluated_model: _EvaluatedModel,
    images_per_second: float,
    is_in_training: npt.NDArray[np.bool_] | None,
    classes: Sequence[str],
) -> ModelResult:
    """Return the metrics and the cost of a model.

    If some images, but not all, have an exact copy in the train split, the metrics are also
    computed for the other images alone.

    Args:
        evaluated_model: Model with its predictions.
        images_per_second: Measured speed of the model.
        is_in_training: Whether each row has an exact copy in the train split, bool of shape
            (rows,); None if the train split is evaluated or is empty.
        classes: Names of the classes.
    """
    without_overlap = None
    if is_in_training is not None and is_in_training.any() and not is_in_training.all():
        without_overlap = classification.compute_metrics(
            evaluated_model.rows[schema.LABEL][~is_in_training],
            evaluated_model.probabilities[~is_in_training],
            classes,
            evaluated_model.metrics.intervals.seed,
        )
    model, network = evaluated_model.model, summarize_network(evaluated_model.network)
    return ModelResult(
        name=evaluated_model.name,
        path=str(model.folder.resolve()),
        sha256=model.info.sha256,
        dataset_checksum=model.info.dataset_checksum,
        network=model.info.network,
        size=model.info.size,
        precision=network.precision,
        cost=Cost(
            network.parameters,
            network.multiply_adds,
            tuple(network.uncounted_layers),
            images_per_second,
        ),
        metrics=evaluated_model.metrics,
        without_overlap=without_overlap,
    )


def _describe_evaluation(dataset: StoredDataset, split: Split) -> dict[str, Any]:
    """Return the entries of `comparison.json` that do not depend on the models.

    These are the file format, the dataset, the split and the package versions.
    """
    return {
        "format": COMPARISON.format,
        "dataset": {
            "path": str(dataset.folder.resolve()),
            "checksum": dataset.checksum,
            "size": dataset.image_size,
        },
        "split": str(split),
        "versions": versions.collect_package_versions(*_PACKAGES),
    }
