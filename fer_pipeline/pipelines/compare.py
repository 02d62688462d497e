"""Comparison of several trained models on one split of a dataset."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.config import Config
from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError, DatasetError, RunError
from fer_pipeline.io import versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import COMPARISON, CONFIG_FILE, ComparisonFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.analysis import timing
from fer_pipeline.learning.analysis.network_summary import summarize_network
from fer_pipeline.learning.inference import predict_split
from fer_pipeline.learning.inference.predict_split import Columns
from fer_pipeline.learning.inference.trained_model import TrainedModel, resolve_model_path
from fer_pipeline.metrics import classification, comparison, comparison_tables, inputs, significance
from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.comparison import BenchmarkSettings, Comparison, Cost, ModelResult
from fer_pipeline.metrics.samples import EvaluatedImages
from fer_pipeline.plots import comparison as comparison_plots

log = logging.getLogger(__name__)

OUTPUT_FILES = (*ComparisonFile, CONFIG_FILE)
"""The files of a comparison, in the order in which they are written."""

_PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "numpy",
    "scipy",
    "scikit-learn",
    "petastorm",
)

_TIMED_BATCHES = 8  # of forward passes, whose time does not depend on the content of the images


@dataclass(frozen=True)
class _ModelPredictions:
    """Predictions of one model for the split.

    Attributes:
        name: Name of the model in the comparison.
        model: The model.
        network: Its Keras model.
        probabilities: Probabilities, of shape (rows, classes).
        rows: Label and origin of each row.
        metrics: Metrics on all rows.
        pixels: The first images in the model's size, uint8 of shape (n, size, size).
    """

    name: str
    model: TrainedModel
    network: Any
    probabilities: npt.NDArray[np.float32]
    rows: Columns
    metrics: Metrics
    pixels: npt.NDArray[np.uint8]


def compare(
    models: Sequence[str | Path],
    dataset: str | Path,
    split: Split,
    output: str | Path,
    config: Config,
    overwrite: bool = False,
) -> Comparison:
    """Compare trained models on the same rows of one split of a dataset, and write the report.

    `comparison.json` is written after the plot; in an overwrite it is deleted before the plot is
    replaced.

    Args:
        models: Folders of finished runs, or names of bundled models, all different.
        dataset: Folder of the dataset; its images are resized for a model of another size.
        split: Split to compare on.
        output: Folder of the comparison.
        config: Configuration, of which `inference` and `seed` matter.
        overwrite: Whether an existing comparison may be replaced.

    Raises:
        ConfigError: LiteRT is configured.
        RunError: A folder is no finished run or is named twice, a model has other classes or
            another enhancement than the dataset, or does not give probabilities.
        DatasetError: The folder is no dataset, or its split is empty or damaged.
        StorageError: There is a comparison already, or the folder holds foreign files.
    """
    if config.inference.backend == "litert":
        raise ConfigError(
            "inference.backend: a comparison runs Keras; evaluate the runs with litert one by one"
        )
    output_folder = OutputFolder(parse_path(output), COMPARISON, overwrite=overwrite)
    output_folder.ensure_writable()
    stored = StoredDataset.open(dataset)
    stored.require_split(split)
    if stored.row_count(Split.TRAIN):
        # Needed at the end, for the exact copies: a missing file is an error before the long work.
        stored.require_split(Split.TRAIN)
    predictions = [
        _predict(name, model, stored, split, config)
        for name, model in _open_models(models, stored).items()
    ]
    in_training = predict_split.find_copies_in_training(stored, split, predictions[0].rows)
    result = _measure(predictions, in_training, stored.classes, config)
    with output_folder.lock_for_writing():
        output_folder.delete_commit_file()
        title = f"accuracy against cost on the {split} split of {stored.name}"
        plot_file = output_folder.path / ComparisonFile.ACCURACY_COST
        comparison_plots.draw_accuracy_cost(result, title, plot_file)
        document = {**_describe_dataset(stored, split), **result.to_dict()}
        output_folder.commit(json.dumps(document, indent=2, allow_nan=False) + "\n", config.write)
    return result


def _open_models(models: Sequence[str | Path], dataset: StoredDataset) -> dict[str, TrainedModel]:
    """Return the models by a short unique name; each is checked before any is run."""
    folders = [resolve_model_path(model) for model in models]
    resolved_folders = [folder.resolve() for folder in folders]
    for index, folder in enumerate(resolved_folders):
        if folder in resolved_folders[:index]:
            raise RunError(f"{folders[index]}: is named twice; name each model once")
    opened = [TrainedModel.open(folder) for folder in folders]
    for model in opened:
        try:
            predict_split.require_compatible(model, dataset)
        except DatasetError as error:
            raise RunError(f"{model.folder}: does not fit the dataset: {error}") from error
    names = comparison.shorten_to_unique_names(resolved_folders)
    return dict(zip(names, opened, strict=True))


def _predict(
    name: str, model: TrainedModel, dataset: StoredDataset, split: Split, config: Config
) -> _ModelPredictions:
    log.info("%s: evaluating %s", name, model.folder)
    predict_split.warn_about_leakage(model, dataset, split)
    network = model.load_network()
    batches: list[npt.NDArray[np.uint8]] = []

    def keep_first_batches(images: EvaluatedImages) -> None:
        if len(batches) < _TIMED_BATCHES:
            batches.append(images.pixels)

    probabilities, rows = predict_split.predict_rows(
        predict_split.make_single_batch_predict_fn(network),
        model,
        dataset,
        split,
        batch_size=config.inference.batch_size,
        flip_tta=config.inference.flip_tta,
        on_batch=keep_first_batches,
    )
    try:
        metrics = classification.compute_metrics(
            rows[schema.LABEL], probabilities, dataset.classes, config.seed
        )
    except ValueError as error:
        raise RunError(f"{model.folder}: its model cannot be evaluated: {error}") from error
    pixels = np.concatenate(batches)
    return _ModelPredictions(name, model, network, probabilities, rows, metrics, pixels)


def _measure(
    predictions: Sequence[_ModelPredictions],
    in_training: npt.NDArray[np.bool_] | None,
    classes: Sequence[str],
    config: Config,
) -> Comparison:
    batch_size = config.inference.batch_size
    log.info("timing forward passes")
    speeds = timing.measure_images_per_second(
        [model.network for model in predictions],
        [model.pixels for model in predictions],
        batch_size,
    )
    results = [
        _make_result(model, speed, in_training, classes)
        for model, speed in zip(predictions, speeds, strict=True)
    ]
    is_correct = [
        inputs.predict_classes(model.probabilities) == model.rows[schema.LABEL]
        for model in predictions
    ]
    settings = BenchmarkSettings(
        min(batch_size, len(predictions[0].pixels)),
        timing.count_available_cores(),
        config.inference.flip_tta,
    )
    pairs = significance.compare_classifiers(np.stack(is_correct))
    copy_count = None if in_training is None else int(in_training.sum())
    return Comparison(tuple(results), pairs, settings, copy_count)


def _make_result(
    predictions: _ModelPredictions,
    images_per_second: float,
    in_training: npt.NDArray[np.bool_] | None,
    classes: Sequence[str],
) -> ModelResult:
    metrics_without_copies = None
    if in_training is not None and in_training.any() and not in_training.all():
        metrics_without_copies = classification.compute_metrics(
            predictions.rows[schema.LABEL][~in_training],
            predictions.probabilities[~in_training],
            classes,
            predictions.metrics.intervals.seed,
        )
    model, network = predictions.model, summarize_network(predictions.network)
    return ModelResult(
        name=predictions.name,
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
        metrics=predictions.metrics,
        without_overlap=metrics_without_copies,
    )


def _describe_dataset(dataset: StoredDataset, split: Split) -> dict[str, Any]:
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


def format_report(result: Comparison, output: str | Path) -> str:
    """Return the job's text for the terminal: costs, accuracies, and which models differ."""
    folder = parse_path(output)
    sections = [
        comparison_tables.format_cost_table(result),
        comparison_tables.format_quality_table(result),
        comparison_tables.format_pairwise_table(result),
        "\n".join(f"wrote {folder / name}" for name in OUTPUT_FILES),
    ]
    return "\n\n".join(sections)
