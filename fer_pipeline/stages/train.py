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

from fer_pipeline import manifest, provenance, publication, storage
from fer_pipeline.config import Config, load_config, load_stored_config
from fer_pipeline.errors import ConfigError, DatasetError, RunError, StorageError
from fer_pipeline.learning.model import bundle, exporting, run_folder
from fer_pipeline.learning.model.run_folder import RunInfo
from fer_pipeline.learning.training import checkpoint, history, measures, resuming
from fer_pipeline.learning.training import plots as training_plots
from fer_pipeline.learning.training.callbacks import Kept, Report
from fer_pipeline.learning.training.checkpoint import Checkpoint
from fer_pipeline.learning.training.history import History
from fer_pipeline.learning.training.plan import CONFIG_SO_FAR, HISTORY_SO_FAR, Plan
from fer_pipeline.learning.training.resuming import RunKeeper
from fer_pipeline.learning.training.tensorboard import TensorBoard
from fer_pipeline.learning.training.tracking import MLflow
from fer_pipeline.manifest import Manifest
from fer_pipeline.publication import EXPORT, RUN

log = logging.getLogger(__name__)

HISTORY, ACCURACY, LOSS = "history.csv", "accuracy.png", "loss.png"
_MLFLOW = "mlflow.json"
_TRACKED = (run_folder.MODEL, run_folder.INFO, publication.CONFIG, HISTORY, ACCURACY, LOSS)
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


def configuration(
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
        folder = storage.path(output)
        found = [folder / name for name in (CONFIG_SO_FAR, publication.CONFIG)]
        path = next((file for file in found if storage.is_file(file)), None)
        if path is None:
            raise RunError(f"{folder}: there is no run to resume; begin one without --resume")
        return load_stored_config(path, overrides)
    return load_config(path, overrides)


def train(
    dataset: str, output: str, config: Config, *, overwrite: bool = False, resume: bool = False
) -> RunInfo:
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
    begun = begin(dataset, output, config, overwrite=overwrite, resume=resume)
    if not begun:
        return run_folder.read(storage.path(output))
    plan = Plan.make(begun.data, begun.folder, begun.made, begun.config, begun.found)
    with can_be_resumed(), begun.writing():
        perform(plan, begun.found, resumed=resume)
    return run_folder.read(begun.folder)


@contextlib.contextmanager
def can_be_resumed() -> Iterator[None]:
    """Within it, whoever stops the training is told how to go on with it."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("--resume goes on with the run") from None


@dataclass(frozen=True)
class Begun:
    """A run that may begin, or go on.

    Attributes:
        data: The dataset's folder.
        folder: The run's.
        made: The dataset's manifest.
        config: The configuration, with what the dataset was made with.
        found: What it goes on from; None for a beginning.
        replaces: Whether a finished run that is there may be replaced.
    """

    data: Path
    folder: Path
    made: Manifest
    config: Config
    found: Checkpoint | None
    replaces: bool

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Within it, the folder is this run's; see `publication.writing`."""
        with publication.writing(self.folder, RUN, overwrite=self.replaces):
            if not self.found:
                # From here on there is nothing to go back to of a run that is replaced.
                for name in (checkpoint.NAME, HISTORY_SO_FAR):
                    storage.remove(self.folder / name)
            self.config.write(self.folder / CONFIG_SO_FAR)
            yield


def begin(
    dataset: str, output: str, config: Config, *, overwrite: bool, resume: bool
) -> Begun | None:
    """Makes sure that a run may begin, or go on; see `train`. None for one that is finished."""
    data, folder = storage.path(dataset), storage.path(output)
    made = manifest.read(data)
    config = _from_anywhere(_of_dataset(config, made))
    if resume and is_finished(folder):
        _require_that_of(folder, config, made)
        log.info("%s: is finished already", folder)
        # All that one which was killed at its very end may have left.
        storage.remove(folder / checkpoint.NAME)
        return None
    # One that had begun to replace another was allowed to.
    begun = resume and storage.exists(folder / publication.BEGUN)
    replaces = overwrite or (begun and storage.is_file(folder / RUN.mark))
    found = _checkpoint(folder, resume=resume, overwrite=overwrite or begun)
    if found:
        resuming.require_same(folder, found, config, data, made)
        log.info("goes on after step %s", f"{found.notes['step']:,}")
    elif resume:
        log.info("%s: has no checkpoint yet; begins at its first step, with %s", folder, data)
    return Begun(data, folder, made, config, found, replaces)


def perform(plan: Plan, found: Checkpoint | None, *, resumed: bool) -> None:
    """Trains to the end, and publishes the run: of several workers, the chief does.

    Args:
        plan: Of the run.
        found: What it goes on from.
        resumed: Whether it was begun before.

    Raises:
        FerError: As in `train`.
    """
    keeper = plan.keeper(found)
    if not plan.worker.is_chief:
        _run(plan, keeper, [])
        return
    with _mlflow(plan, keeper.history, resumed=resumed) as mlflow:
        _run(plan, keeper, [mlflow] if mlflow else [])
        info = _publish(plan, keeper)
        if mlflow:
            mlflow.finish(info.best_class_accuracies, [plan.folder / name for name in _TRACKED])


def _run(plan: Plan, keeper: RunKeeper, trackers: list[Any]) -> None:
    """Trains all restarts that are not yet done."""
    chosen = plan.config
    if plan.worker.count == 1:
        # The rounds of several workers are told where they were asked for.
        trackers = [Report(keeper.history), *trackers]
    if chosen.tracking.tensorboard and plan.worker.is_chief:
        trackers = [*trackers, TensorBoard(plan.folder / RUN.folders[0], keeper.history)]
    for restart in range(keeper.restart, chosen.training.restarts):
        if restart > keeper.restart:
            plan.begin_again()
        plan.run(keeper, restart, trackers)


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
        for key in resuming.differing(found.to_dict(), config.to_dict())
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
    located = {name: run_folder.located(name) for name in distillation.teachers}
    teachers = [
        # A model of the package is at another place on each machine.
        name if folder == run_folder.PRETRAINED / name else str(folder.absolute())
        for name, folder in located.items()
    ]
    changed = distillation.model_copy(update={"teachers": teachers})
    training = config.training.model_copy(update={"distillation": changed})
    return config.model_copy(update={"training": training})


def is_finished(folder: Path) -> bool:
    """Whether there is a finished run that nothing has begun to replace."""
    begun = storage.exists(folder / publication.BEGUN)
    return storage.is_file(folder / RUN.mark) and not begun


def _require_that_of(folder: Path, config: Config, made: Manifest) -> None:
    """Makes sure that a finished run is the one that is meant.

    Raises:
        ConfigError: It had another configuration.
        DatasetError: It had another dataset.
    """
    resuming.require_same_config(
        folder, load_stored_config(folder / publication.CONFIG).to_dict(), config
    )
    info = run_folder.read(folder)
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
def _mlflow(plan: Plan, made: History, *, resumed: bool) -> Iterator[MLflow | None]:
    """The run in MLflow, where it is asked for; one that fails is told so."""
    if not plan.config.tracking.mlflow.enabled:
        yield None
        return
    opened = MLflow(
        plan.folder / _MLFLOW,
        made,
        plan.config,
        name=plan.folder.name,
        dataset_checksum=plan.made.checksum,
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
    path = folder / checkpoint.NAME
    if resume and storage.is_file(path):
        return checkpoint.read(path)
    if storage.is_file(path) and not overwrite and not storage.is_file(folder / RUN.mark):
        raise StorageError(
            f"{folder}: holds an unfinished run; --resume continues it, --overwrite begins anew"
        )
    publication.claim(folder, RUN, overwrite=overwrite)
    return None


def _publish(plan: Plan, keeper: RunKeeper) -> RunInfo:
    folder, made, config, kept = plan.folder, plan.made, plan.config, keeper.best.kept
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
    temperature = plan.temperature()
    # A wrapper of its own: what the callbacks drive is compiled, what is saved is not.
    model = bundle.servable(plan.network, size, made.image.normalization, temperature)
    if not config.tracking.mlflow.enabled:
        storage.remove(folder / _MLFLOW)
    if not config.tracking.tensorboard:
        storage.remove_folder(folder / RUN.folders[0])
    # From here on the old run is gone, until the new one's mark stands.
    storage.remove(folder / RUN.mark)
    storage.remove(folder / publication.CONFIG)
    publication.withdraw(folder / run_folder.EXPORTS, EXPORT)
    training_plots.accuracy(rounds, title, folder / ACCURACY)
    training_plots.loss(rounds, title, folder / LOSS)
    storage.move(folder / HISTORY_SO_FAR, folder / HISTORY)
    bundle.save(model, folder / run_folder.MODEL)
    exporting.write_weights(model, folder)
    info = RunInfo(
        classes=made.classes,
        size=size,
        normalization=made.image.normalization,
        enhancement=made.image.enhancement,
        dataset_checksum=made.checksum,
        network=config.model.name,
        options=config.model.options,
        parameters=plan.network.count_params(),
        precision=plan.precision,
        best_step=kept.made.step,
        best_restart=kept.made.restart,
        best_accuracy=kept.made.validation_accuracy,
        best_class_accuracies=_by_class(kept, made.classes),
        teachers=[*plan.teachers],
        temperature=temperature,
        seed=config.seed,
        workers=plan.worker.count,
        sha256=run_folder.digest(folder / run_folder.MODEL),
        versions=provenance.versions(*_PACKAGES),
    )
    storage.write_text(folder / run_folder.INFO, info.model_dump_json(indent=2) + "\n")
    config.write(folder / publication.CONFIG)
    storage.remove(folder / CONFIG_SO_FAR)
    publication.clean(folder, RUN, keep=())
    storage.remove(folder / checkpoint.NAME)
    return info


def _by_class(kept: Kept, classes: Sequence[str]) -> dict[str, float | None]:
    if kept.confusion is None:
        return {}
    found = measures.class_accuracies(np.array(kept.confusion))
    return dict(zip(classes, found, strict=True))


def summary(info: RunInfo, output: str) -> str:
    """The result of the job for a terminal: the history, the best model, and where it is."""
    folder = storage.path(output)
    rounds = history.read(folder / HISTORY)
    found = "not validated" if info.best_accuracy is None else f"{info.best_accuracy:.2%}"
    kept = f"step {info.best_step:,}"
    if any(made.restart for made in rounds):
        kept = f"restart {info.best_restart}, {kept}"
    return "\n".join(
        [
            history.table(rounds),
            "",
            f"{info.network}, {info.parameters:,} parameters; kept: {kept},"
            f" validation accuracy {found}; temperature {info.temperature:.3f}",
            f"model {folder / run_folder.MODEL}",
        ]
    )
