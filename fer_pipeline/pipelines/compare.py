"""Comparison of several trained models on one split of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_pipeline.config import Config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError, DatasetError, RunError
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import COMPARISON, CONFIG_FILE, ComparisonFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference import dataset_checks
from fer_pipeline.learning.inference.trained_model import TrainedModel, resolve_model_path

if TYPE_CHECKING:
    from fer_pipeline.metrics.comparison import Comparison

OUTPUT_FILES = (*ComparisonFile, CONFIG_FILE)
"""File names of a comparison, in the order in which they are written."""


def compare(
    models: Sequence[str | Path],
    dataset: str | Path,
    split: Split,
    output: str | Path,
    config: Config,
    overwrite: bool = False,
) -> Comparison:
    """Compare trained models on the same rows of one split of a dataset, and write the report.

    The accuracy, the calibration and the speed are compared. The report consists of
    `comparison.json`, a plot and the configuration.

    Args:
        models: Output folders of finished training runs, or names of bundled models.
        dataset: Folder of the dataset. Its images are resized for models with a different image
            size.
        split: Split to evaluate the models on.
        output: Folder to write the report to.
        config: Configuration. Only the section `inference` and the key `seed` are used.
        overwrite: Whether an existing comparison may be replaced.

    Returns:
        The results of all models and the significance tests.

    Raises:
        ConfigError: The configured backend is LiteRT.
        RunError: A folder does not contain a finished run or is given twice, or a model has
            different classes or a different image enhancement than the dataset, or it does not
            predict probabilities.
        DatasetError: The folder does not contain a dataset, or the split is empty or damaged.
        StorageError: The output folder contains a comparison and `overwrite` is False, it contains
            files that are not part of a comparison, or it cannot be written.
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
        # The train split is needed at the end, to find exact copies. Fail now if a file is missing.
        stored.require_split(Split.TRAIN)
    opened_models = _open_models(models, stored)
    # This imports TensorFlow, which takes seconds. All mistakes that can be found without it have
    # been reported by now.
    from fer_pipeline.pipelines import run_comparison

    return run_comparison.compare_models(opened_models, stored, split, config, output_folder)


def _open_models(models: Sequence[str | Path], dataset: StoredDataset) -> list[TrainedModel]:
    """Open the models, and check that each model fits the dataset.

    Args:
        models: Output folders of finished training runs, or names of bundled models.
        dataset: Dataset to evaluate the models on.

    Raises:
        RunError: A folder does not contain a finished run or is given twice, or a model does not
            fit the dataset.
    """
    folders = [resolve_model_path(model) for model in models]
    resolved_folders = [folder.resolve() for folder in folders]
    for index, folder in enumerate(resolved_folders):
        if folder in resolved_folders[:index]:
            raise RunError(f"{folders[index]}: is given twice; give each model once")
    trained_models = [TrainedModel.open(folder) for folder in folders]
    for model in trained_models:
        try:
            dataset_checks.require_compatible_dataset(model, dataset)
        except DatasetError as error:
            raise RunError(f"{model.folder}: does not fit the dataset: {error}") from error
    return trained_models


def format_report(comparison: Comparison, output: str | Path) -> str:
    """Return the report for the terminal.

    It consists of the tables of costs, accuracies and significance tests, and of the paths of the
    written files.

    Args:
        comparison: Result of `compare`.
        output: Folder that the comparison was written to.
    """
    # scikit-learn, which the metrics need, is imported only after all checks.
    from fer_pipeline.metrics import comparison_tables

    folder = parse_path(output)
    sections = [
        comparison_tables.format_cost_table(comparison),
        comparison_tables.format_quality_table(comparison),
        comparison_tables.format_pairwise_table(comparison),
        "\n".join(f"wrote {folder / name}" for name in OUTPUT_FILES),
    ]
    return "\n\n".join(sections)
