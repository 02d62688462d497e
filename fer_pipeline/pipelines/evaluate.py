"""Evaluation of a trained model on one split of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fer_pipeline.config import Config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.io import storage
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import CONFIG_FILE, EVALUATION, EvaluationFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference import backend, dataset_checks
from fer_pipeline.learning.inference.backend import InferenceBackend
from fer_pipeline.learning.inference.trained_model import TrainedModel

if TYPE_CHECKING:
    from fer_pipeline.pipelines.run_evaluation import Evaluation

OUTPUT_FILES = (*EvaluationFile, CONFIG_FILE)
"""Names of all files of an evaluation, in the order in which they are written."""


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
class EvaluationInputs:
    """The checked inputs of an evaluation.

    Attributes:
        dataset: Dataset with the split to evaluate on.
        model: Trained model.
        content: Content of the model's file.
        backend: Backend that makes the predictions, and the content of its model file.
    """

    dataset: StoredDataset
    model: TrainedModel
    content: bytes
    backend: InferenceBackend


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
    inputs = _open_inputs(request)
    # This imports TensorFlow, which takes seconds. All mistakes that can be found without it have
    # been reported by now.
    from fer_pipeline.pipelines import run_evaluation

    return run_evaluation.evaluate_inputs(request, inputs, output_folder)


def _open_inputs(request: EvaluationRequest) -> EvaluationInputs:
    """Open the dataset and the model, and check that they match and that the request is valid.

    A warning is logged if the model may have been trained on images of the split.

    Raises:
        RunError: The model's folder is not a finished run, or LiteRT is configured and the run has
            no LiteRT export.
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
    dataset_checks.require_compatible_dataset(model, dataset)
    _require_row(dataset, request.split, request.image)
    content = model.read_content()
    # Unlike score, evaluate runs the Keras model unless LiteRT is configured explicitly.
    use_litert = request.config.inference.backend == "litert"
    inference_backend = backend.choose_backend(model, content, "litert" if use_litert else "keras")
    dataset_checks.warn_about_leakage(model, dataset, request.split)
    return EvaluationInputs(dataset, model, content, inference_backend)


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


def format_report(evaluation: Evaluation, output: str | Path) -> str:
    """Return the report of the job: tables of the metrics, and the paths of the written files.

    Files that were not written are left out, such as the feature maps if no layer was requested.

    Args:
        evaluation: Metrics of the evaluation.
        output: Folder of the evaluation.
    """
    # scikit-learn, which the metrics need, is imported only after all checks.
    from fer_pipeline.metrics import tables

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
