"""From a dataset to a trained model."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from fer_pipeline.config import Config, load_config, load_stored_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.manifest import Manifest
from fer_pipeline.errors import ConfigError, DatasetError, RunError, StorageError
from fer_pipeline.io import storage, versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import (
    CONFIG_FILE,
    EXPORT,
    EXPORT_FOLDER,
    RUN,
    TENSORBOARD_FOLDER,
    RunFile,
)
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.export import formats
from fer_pipeline.learning.inference import serving_model, trained_model
from fer_pipeline.learning.inference.trained_model import ModelInfo
from fer_pipeline.learning.training import checkpoint, history, resume_checks, running_metrics
from fer_pipeline.learning.training.callbacks import BestSnapshot
from fer_pipeline.learning.training.checkpoint import Checkpoint
from fer_pipeline.learning.training.checkpointer import RunCheckpointer
from fer_pipeline.learning.training.history import History
from fer_pipeline.learning.training.loggers.console import ConsoleLogger
from fer_pipeline.learning.training.loggers.mlflow import MLflow
from fer_pipeline.learning.training.loggers.tensorboard import TensorBoard
from fer_pipeline.learning.training.training_run import TrainingRun
from fer_pipeline.pipelines.training_plots import plot_training

log = logging.getLogger(__name__)

_TRACKED_FILES = (
    RunFile.MODEL,
    RunFile.MODEL_INFO,
    CONFIG_FILE,
    RunFile.HISTORY,
    RunFile.ACCURACY_PLOT,
    RunFile.LOSS_PLOT,
)
# What a dataset was made by, and what of it a network sees.
_OF_DATA = (
    "classes",
    "input",
    "image",
    "labels",
    "split",
    "sampling",
    "variants",
    "output",
)
_SEEN_BY_NETWORK = ("classes", "image", "labels")
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "petastorm")


def load_run_config(
    output: str, path: Path | None, overrides: Sequence[str], *, resume: bool
) -> Config:
    """The configuration of a run: for one that is resumed, its own, unless a file is given.

    Args:
        output: The run's folder.
        path: A YAML file.
        overrides: See `load_config`.
        resume: Whether the run is resumed.

    Raises:
        ConfigError: It is not valid.
        RunError: There is no run to resume, or it was written by an older version.
    """
    if resume and path is None:
        folder = parse_path(output)
        found = [folder / name for name in (RunFile.UNFINISHED_CONFIG, CONFIG_FILE)]
        path = next((file for file in found if storage.is_file(file)), None)
        if path is None:
            raise RunError(f"{folder}: there is no run to resume; begin one without --resume")
        return load_stored_config(path, overrides)
    return load_config(path, overrides)


def train(
    dataset: str, output: str, config: Config, *, overwrite: bool = False, resume: bool = False
) -> ModelInfo:
    """Trains a network.

    `model.json` is written last: a folder without it is no finished run.

    Args:
        dataset: The dataset's folder.
        output: The run's folder.
        config: The configuration.
        overwrite: Whether a run that is there, finished or not, may be replaced.
        resume: Whether to go on with an unfinished run that is there. A finished one is left as it
            is, and one that has no checkpoint yet is begun again.

    Returns:
        What the finished run says of its model.

    Raises:
        DatasetError: The dataset is none, is damaged, has no training rows, or is not that of the
            run that is resumed.
        ConfigError: There is no such network or option, or the configuration is not that of the
            run that is resumed.
        RunError: The loss is no number any more, or a checkpoint is damaged.
        StorageError: There is a run already, or the folder holds something else.
    """
    begun = prepare_run(dataset, output, config, overwrite=overwrite, resume=resume)
    if not begun:
        return trained_model.read_model_info(parse_path(output))
    plan = TrainingRun.build(begun.dataset, begun.folder, begun.config, begun.found)
    with with_resume_hint(), begun.writing():
        run_training(plan, begun.found, resumed=resume)
    return trained_model.read_model_info(begun.folder)


@contextlib.contextmanager
def with_resume_hint() -> Iterator[None]:
    """Within it, whoever stops the training is told how to go on with it."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("--resume goes on with the run") from None


@dataclass(frozen=True)
class PreparedRun:
    """A run that may begin, or go on.

    Attributes:
        dataset: The dataset.
        folder: The run's.
        config: The configuration, with what the dataset was made with.
        found: What it goes on from; None for a beginning.
        replaces: Whether a finished run that is there may be replaced.
    """

    dataset: StoredDataset
    folder: Path
    config: Config
    found: Checkpoint | None
    replaces: bool

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Within it, the folder is this run's; see `OutputFolder.writing`."""
        with OutputFolder(self.folder, RUN, overwrite=self.replaces).writing():
            if not self.found:
                # From here on there is nothing to go back to of a run that is replaced.
                for name in (RunFile.CHECKPOINT, RunFile.UNFINISHED_HISTORY):
                    storage.remove(self.folder / name)
            self.config.write(self.folder / RunFile.UNFINISHED_CONFIG)
            yield


def prepare_run(
    dataset: str, output: str, config: Config, *, overwrite: bool, resume: bool
) -> PreparedRun | None:
    """Makes sure that a run may begin, or go on; see `train`. None for one that is finished."""
    stored, folder = StoredDataset.open(dataset), parse_path(output)
    made = stored.manifest
    config = _from_anywhere(_of_dataset(config, made))
    if resume and is_finished(folder):
        _require_that_of(folder, config, made)
        log.info("%s: is finished already", folder)
        # All that one which was killed at its very end may have left.
        storage.remove(folder / RunFile.CHECKPOINT)
        return None
    output_folder = OutputFolder(folder, RUN)
    # One that had begun to replace another was allowed to.
    begun = resume and output_folder.is_in_progress()
    replaces = overwrite or (begun and output_folder.is_committed())
    found = _checkpoint(folder, resume=resume, overwrite=overwrite or begun)
    if found:
        resume_checks.require_same_run(folder, found.state, config, stored)
        log.info("goes on after step %s", f"{found.state.step:,}")
    elif resume:
        log.info(
            "%s: has no checkpoint yet; begins at its first step, with %s", folder, stored.folder
        )
    return PreparedRun(stored, folder, config, found, replaces)


def run_training(plan: TrainingRun, found: Checkpoint | None, *, resumed: bool) -> None:
    """Trains to the end, and publishes the run: of several workers, the chief does.

    Args:
        plan: Of the run.
        found: What it goes on from.
        resumed: Whether it was begun before.

    Raises:
        FerError: As in `train`.
    """
    keeper = plan.make_checkpointer(found)
    if not plan.worker.is_chief:
        _run(plan, keeper, [])
        return
    with _mlflow(plan, keeper.history, resumed=resumed) as mlflow:
        _run(plan, keeper, [mlflow] if mlflow else [])
        info = _publish(plan, keeper)
        if mlflow:
            mlflow.finish(
                info.best_class_accuracies, [plan.folder / name for name in _TRACKED_FILES]
            )


def _run(plan: TrainingRun, keeper: RunCheckpointer, trackers: list[Any]) -> None:
    """Trains all restarts that are not yet done."""
    chosen = plan.config
    if plan.worker.world_size == 1:
        # The rounds of several workers are told where they were asked for.
        trackers = [ConsoleLogger(keeper.history), *trackers]
    if chosen.tracking.tensorboard and plan.worker.is_chief:
        trackers = [*trackers, TensorBoard(plan.folder / TENSORBOARD_FOLDER, keeper.history)]
    for restart in range(keeper.restart, chosen.training.restarts):
        if restart > keeper.restart:
            plan.reset_weights()
        plan.run_restart(keeper, restart, trackers)


def _of_dataset(config: Config, made: Manifest) -> Config:
    """The configuration with what it says of the data as the dataset was made."""
    kept = {name: made.config[name] for name in _OF_DATA if name in made.config}
    try:
        found = Config.model_validate({**config.to_dict(), **kept})
    except ValidationError:
        # A dataset of another version: its manifest says all that training needs.
        return config
    differing = [
        key
        for key in resume_checks.changed_keys(found.to_dict(), config.to_dict())
        if key.startswith(_SEEN_BY_NETWORK) and config.is_set(key)
    ]
    if differing:
        log.warning(
            "the dataset was made with another %s than is configured: the dataset's counts",
            ", ".join(differing),
        )
    return found


def _from_anywhere(config: Config) -> Config:
    """The configuration with paths that mean the same in whatever folder a worker runs."""
    distillation = config.training.distillation
    if not distillation.teachers:
        return config
    located = {name: trained_model.resolve_model_path(name) for name in distillation.teachers}
    teachers = [
        # A model of the package is at another place on each machine.
        name if folder == trained_model.PRETRAINED_FOLDER / name else str(folder.absolute())
        for name, folder in located.items()
    ]
    changed = distillation.model_copy(update={"teachers": teachers})
    training = config.training.model_copy(update={"distillation": changed})
    return config.model_copy(update={"training": training})


def is_finished(folder: Path) -> bool:
    """Whether there is a finished run that nothing has begun to replace."""
    output_folder = OutputFolder(folder, RUN)
    return output_folder.is_committed() and not output_folder.is_in_progress()


def _require_that_of(folder: Path, config: Config, made: Manifest) -> None:
    """Makes sure that a finished run is the one that is meant.

    Raises:
        ConfigError: It had another configuration.
        DatasetError: It had another dataset.
    """
    resume_checks.require_same_config(
        folder, load_stored_config(folder / CONFIG_FILE).to_dict(), config
    )
    info = trained_model.read_model_info(folder)
    if config.model.temperature not in (None, info.temperature):
        raise ConfigError(
            f"{folder}: is finished, with a temperature of {info.temperature:.6g};"
            " model.temperature can be set until then"
        )
    if info.dataset_checksum != made.checksum:
        raise DatasetError(
            f"{folder}: was trained on another dataset (checksum {info.dataset_checksum}, this one"
            f" has {made.checksum})"
        )


@contextlib.contextmanager
def _mlflow(plan: TrainingRun, made: History, *, resumed: bool) -> Iterator[MLflow | None]:
    """The run in MLflow, where it is asked for; one that fails is told so."""
    if not plan.config.tracking.mlflow.enabled:
        yield None
        return
    opened = MLflow(
        plan.folder / RunFile.MLFLOW_RUN,
        made,
        plan.config,
        name=plan.folder.name,
        dataset_checksum=plan.dataset.checksum,
        resumed=resumed,
    )
    try:
        yield opened
    except BaseException:
        opened.fail()
        raise


def _checkpoint(folder: Path, *, resume: bool, overwrite: bool) -> Checkpoint | None:
    """What to go on from; None to begin.

    Raises:
        RunError: It is damaged.
        StorageError: There is a run already, or something to go on from and nothing says what to do
            with it.
    """
    path = folder / RunFile.CHECKPOINT
    output_folder = OutputFolder(folder, RUN, overwrite=overwrite)
    if resume and storage.is_file(path):
        return checkpoint.read_checkpoint(path)
    if storage.is_file(path) and not overwrite and not output_folder.is_committed():
        raise StorageError(
            f"{folder}: holds an unfinished run; --resume continues it, --overwrite begins anew"
        )
    output_folder.ensure_writable()
    return None


def _publish(plan: TrainingRun, keeper: RunCheckpointer) -> ModelInfo:
    folder, made, config = plan.folder, plan.dataset.manifest, plan.config
    kept = keeper.best.snapshot
    if kept is None:
        raise RunError("not one round of training was finished; nothing is kept")
    if not all(np.isfinite(weights).all() for weights in kept.weights):
        raise RunError(
            "the weights are not finite after the last step; a lower"
            " training.optimizer.learning_rate, or training.optimizer.global_clipnorm, may help"
        )
    size, rounds = made.image.size, keeper.history.rounds
    title = f"{config.model.name} on {len(made.classes)} classes, {size}x{size}"
    plan.network.set_weights(kept.weights)
    temperature = plan.fit_temperature()
    # A wrapper of its own: what the callbacks drive is compiled, what is saved is not.
    model = serving_model.build_serving_model(
        plan.network, size, made.image.normalization, temperature
    )
    if not config.tracking.mlflow.enabled:
        storage.remove(folder / RunFile.MLFLOW_RUN)
    if not config.tracking.tensorboard:
        storage.remove_folder(folder / TENSORBOARD_FOLDER)
    output_folder = OutputFolder(folder, RUN)
    output_folder.retract()
    OutputFolder(folder / EXPORT_FOLDER, EXPORT).delete_outdated()
    plot_training(rounds, title, folder)
    storage.move(folder / RunFile.UNFINISHED_HISTORY, folder / RunFile.HISTORY)
    serving_model.save_model(model, folder / RunFile.MODEL)
    formats.write_weights(model, folder)
    info = ModelInfo(
        classes=made.classes,
        size=size,
        normalization=made.image.normalization,
        enhancement=made.image.enhancement,
        dataset_checksum=made.checksum,
        network=config.model.name,
        options=config.model.options,
        parameters=plan.network.count_params(),
        precision=plan.precision,
        best_step=kept.round.step,
        best_restart=kept.round.restart,
        best_accuracy=kept.round.validation_accuracy,
        best_class_accuracies=_by_class(kept, made.classes),
        teachers=[*plan.teacher_checksums],
        temperature=temperature,
        seed=config.seed,
        workers=plan.worker.world_size,
        sha256=trained_model.file_sha256(folder / RunFile.MODEL),
        versions=versions.package_versions(*_PACKAGES),
    )
    output_folder.commit(
        info.model_dump_json(indent=2) + "\n",
        config.write,
        obsolete_files=[RunFile.UNFINISHED_CONFIG],
    )
    # After the in-progress file: a run that has both is resumed from its checkpoint.
    storage.remove(folder / RunFile.CHECKPOINT)
    return info


def _by_class(kept: BestSnapshot, classes: Sequence[str]) -> dict[str, float | None]:
    if kept.confusion is None:
        return {}
    found = running_metrics.class_accuracies(np.array(kept.confusion))
    return dict(zip(classes, found, strict=True))


def summary(info: ModelInfo, output: str) -> str:
    """The result of the job for a terminal: the history, the best model, and where it is."""
    folder = parse_path(output)
    rounds = history.read_history(folder / RunFile.HISTORY)
    found = "not validated" if info.best_accuracy is None else f"{info.best_accuracy:.2%}"
    kept = f"step {info.best_step:,}"
    if any(made.restart for made in rounds):
        kept = f"restart {info.best_restart}, {kept}"
    return "\n".join(
        [
            history.format_history(rounds),
            "",
            f"{info.network}, {info.parameters:,} parameters; kept: {kept},"
            f" validation accuracy {found}; temperature {info.temperature:.3f}",
            f"model {folder / RunFile.MODEL}",
        ]
    )
