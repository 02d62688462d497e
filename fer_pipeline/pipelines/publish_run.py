"""Publication of a training run: building the model from the best weights, and writing files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_pipeline.errors import RunError
from fer_pipeline.io import storage, versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import (
    EXPORT,
    EXPORT_FOLDER,
    RUN,
    TENSORBOARD_FOLDER,
    RunFile,
)
from fer_pipeline.learning.export import formats
from fer_pipeline.learning.inference import serving_model, trained_model
from fer_pipeline.learning.inference.trained_model import ModelInfo
from fer_pipeline.learning.training import running_metrics
from fer_pipeline.learning.training.callbacks import BestSnapshot
from fer_pipeline.learning.training.checkpointer import RunCheckpointer
from fer_pipeline.learning.training.training_run import TrainingRun
from fer_pipeline.pipelines.training_plots import plot_training

_PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "petastorm",
)


@dataclass(frozen=True)
class FinalModel:
    """The final model of a run that has ended.

    Attributes:
        model: Keras model that takes raw pixels and returns probabilities.
        temperature: Softmax temperature of the model, which divides the logits.
        snapshot: Best weights, with the validation in which the network had these weights.
    """

    model: Any
    temperature: float
    snapshot: BestSnapshot


def finalize_model(run: TrainingRun, snapshot: BestSnapshot | None) -> FinalModel:
    """Build the final model of a run, with the run's best weights. No file is written.

    The model includes the normalisation and the softmax with the temperature. It is not compiled.

    Args:
        run: The run; this function sets the weights of its network to the best weights.
        snapshot: Best weights of the run; None if no validation has taken place yet.

    Raises:
        RunError: Training ended before its first validation, or a weight is not finite.
    """
    if snapshot is None:
        raise RunError(
            "training ended before its first validation, so there are no weights to keep"
        )
    if not all(np.isfinite(weights).all() for weights in snapshot.weights):
        raise RunError(
            "the weights are not finite after the last step; try a lower"
            " training.optimizer.learning_rate or training.optimizer.global_clipnorm"
        )
    run.network.set_weights(snapshot.weights)
    temperature = run.choose_temperature()
    # The model for training is compiled. The saved model should not be, so build a new one.
    model = serving_model.build_serving_model(
        run.network,
        run.dataset.image_size,
        run.dataset.manifest.image.normalization,
        temperature,
    )
    return FinalModel(model, temperature, snapshot)


def publish_run(run: TrainingRun, checkpointer: RunCheckpointer) -> ModelInfo:
    """Write the files of a run that has ended, `model.json` last.

    The export and the outdated logs of an earlier run in the folder are deleted. The checkpoint is
    deleted at the end, so that `--resume` can publish the run again if the process is killed.

    Args:
        run: Run that has ended.
        checkpointer: Checkpointer of the run, which holds its history and best weights.

    Returns:
        Description of the model, which is the content of `model.json`.

    Raises:
        RunError: Training ended before its first validation, or a weight is not finite.
        StorageError: A file cannot be written.
    """
    final = finalize_model(run, checkpointer.best.snapshot)
    folder = run.folder
    _delete_logs_of_replaced_run(run)
    output_folder = OutputFolder(folder, RUN)
    output_folder.invalidate_old_output()
    OutputFolder(folder / EXPORT_FOLDER, EXPORT).delete_outdated_output()
    _plot_curves(run, checkpointer)
    storage.move(folder / RunFile.UNFINISHED_HISTORY, folder / RunFile.HISTORY)
    serving_model.save_model(final.model, folder / RunFile.MODEL)
    formats.write_weights_and_architecture(final.model, folder)
    model_info = _make_model_info(run, final)
    output_folder.commit(
        model_info.model_dump_json(indent=2) + "\n",
        run.config.write,
        obsolete_files=[RunFile.UNFINISHED_CONFIG],
    )
    # Delete the checkpoint after the in-progress file: as long as both exist, the run can be
    # resumed.
    storage.remove(folder / RunFile.CHECKPOINT)
    return model_info


def _delete_logs_of_replaced_run(run: TrainingRun) -> None:
    """Delete the logs of an earlier run in the same folder, unless this run writes them as well.

    These are the file with the ID of the MLflow run, and the folder of TensorBoard.
    """
    if not run.config.tracking.mlflow.enabled:
        storage.remove(run.folder / RunFile.MLFLOW_RUN)
    if not run.config.tracking.tensorboard:
        storage.remove_folder(run.folder / TENSORBOARD_FOLDER)


def _plot_curves(run: TrainingRun, checkpointer: RunCheckpointer) -> None:
    """Save the plots of the run's loss and accuracy against the training steps."""
    image_size, classes = run.dataset.image_size, run.dataset.classes
    title = f"{run.config.model.name} on {len(classes)} classes, {image_size}x{image_size}"
    plot_training(checkpointer.history.entries, title, run.folder)


def _make_model_info(run: TrainingRun, final: FinalModel) -> ModelInfo:
    """Return the content of `model.json`.

    The model file must already be written, because the content includes its SHA-256.
    """
    dataset, config, best_entry = run.dataset, run.config, final.snapshot.entry
    return ModelInfo(
        classes=dataset.classes,
        size=dataset.image_size,
        normalization=dataset.manifest.image.normalization,
        enhancement=dataset.manifest.image.enhancement,
        dataset_checksum=dataset.checksum,
        network=config.model.name,
        options=config.model.options,
        parameters=run.network.count_params(),
        precision=run.precision,
        best_step=best_entry.step,
        best_restart=best_entry.restart,
        best_accuracy=best_entry.validation_accuracy,
        best_class_accuracies=_compute_class_accuracies(final.snapshot, dataset.classes),
        teachers=[*run.teacher_checksums],
        temperature=final.temperature,
        seed=config.seed,
        workers=run.worker.world_size,
        sha256=trained_model.compute_sha256(run.folder / RunFile.MODEL),
        versions=versions.collect_package_versions(*_PACKAGES),
    )


def _compute_class_accuracies(
    snapshot: BestSnapshot, classes: Sequence[str]
) -> dict[str, float | None]:
    """Return the validation accuracy of the best weights by class; None for a class without images.

    The mapping is empty if the dataset has no validation split.
    """
    if snapshot.confusion is None:
        return {}
    accuracies = running_metrics.class_accuracies(np.array(snapshot.confusion))
    return dict(zip(classes, accuracies, strict=True))
