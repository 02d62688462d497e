"""From a dataset to a trained model."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_pipeline import manifest, provenance, publication, storage
from fer_pipeline.config import Config
from fer_pipeline.errors import ConfigError, RunError, StorageError
from fer_pipeline.learning import (
    bundle,
    checkpoint,
    exporting,
    history,
    measures,
    training_plots,
)
from fer_pipeline.learning.bundle import RunInfo
from fer_pipeline.learning.callbacks import Kept
from fer_pipeline.learning.checkpoint import Checkpoint
from fer_pipeline.learning.history import History
from fer_pipeline.learning.plan import HISTORY_SO_FAR, Plan
from fer_pipeline.learning.resuming import RunKeeper
from fer_pipeline.learning.tensorboard import TensorBoard
from fer_pipeline.learning.tracking import MLflow
from fer_pipeline.publication import RUN

log = logging.getLogger(__name__)

HISTORY, ACCURACY, LOSS = "history.csv", "accuracy.png", "loss.png"
_MLFLOW = "mlflow.json"
_TRACKED = (bundle.MODEL, bundle.INFO, publication.CONFIG, HISTORY, ACCURACY, LOSS)
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "petastorm")


def train(
    dataset: str,
    output: str,
    config: Config | None,
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> RunInfo:
    """Trains a network.

    `model.json` is written last: a folder without it is no finished run.

    Args:
        dataset: The dataset's folder.
        output: The run's folder.
        config: The configuration; None for that of the run that is resumed.
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
    data, folder = storage.local_path(dataset), storage.local_path(output)
    found = _checkpoint(folder, resume=resume, overwrite=overwrite)
    if found is None and resume and _finished(folder):
        log.info("%s: is finished already", folder)
        return bundle.read(folder)
    if found is None:
        publication.claim(folder, RUN, overwrite=overwrite)
    config = _continued(folder, config, found)
    made = manifest.read(data)
    plan = Plan.make(data, folder, made, config, found)
    publication.begin(folder)
    initial = plan.trainer.state()
    keeper = plan.keeper(found)
    with _mlflow(plan, keeper.history, resumed=resume) as mlflow:
        trackers: list[Any] = [mlflow] if mlflow else []
        if config.tracking.tensorboard:
            trackers.append(TensorBoard(folder / RUN.folders[0], keeper.history))
        try:
            for trial in range(keeper.trial, config.training.trials):
                if trial > keeper.trial:
                    plan.trainer.restore(initial, 0)
                plan.run(keeper, trial, trackers)
        except KeyboardInterrupt:
            log.info("stopped; --resume goes on from the last checkpoint")
            raise
        info = _publish(plan, keeper)
        if mlflow:
            mlflow.finish(info.best_class_accuracies, [folder / name for name in _TRACKED])
    return info


@contextlib.contextmanager
def _mlflow(plan: Plan, made: History, *, resumed: bool) -> Iterator[MLflow | None]:
    """The run in MLflow, where it is asked for; one that fails is told so."""
    if not plan.config.tracking.mlflow:
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
        StorageError: There is something to go on from, and nothing says what to do with it.
    """
    path = folder / checkpoint.NAME
    if not path.is_file() or (_finished(folder) and not resume):
        return None
    if resume:
        return checkpoint.read(path)
    if not overwrite:
        raise StorageError(
            f"{folder}: holds an unfinished run; --resume continues it, --overwrite begins anew"
        )
    return None


def _continued(folder: Path, config: Config | None, found: Checkpoint | None) -> Config:
    """The configuration of a run, which stays the same when it is resumed.

    Raises:
        ConfigError: It is another than the run was begun with.
    """
    if found is None:
        return config or Config()
    begun = found.notes["config"]
    if config is not None:
        differing = sorted(_differing(begun, config.dump()))
        if differing:
            raise ConfigError(
                f"{folder}: the run was begun with another {', '.join(differing)}; resume it"
                " without --config and --set, or begin anew with --overwrite"
            )
    return Config.model_validate(begun)


def _differing(one: Any, other: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys under which two configurations differ."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        if one != other:
            yield prefix
        return
    for key in sorted({*one, *other}):
        yield from _differing(one.get(key), other.get(key), f"{prefix}.{key}" if prefix else key)


def _finished(folder: Path) -> bool:
    return (folder / RUN.mark).is_file()


def _publish(plan: Plan, keeper: RunKeeper) -> RunInfo:
    folder, made, config, kept = plan.folder, plan.made, plan.config, keeper.best.kept
    if kept is None:
        raise RunError("not one round of training was finished; nothing is kept")
    size, rounds = made.image.size, keeper.history.rounds
    title = f"{config.model.name} on {len(made.classes)} classes, {size}x{size}"
    # A wrapper of its own: what the callbacks drive is compiled, what is saved is not.
    model = bundle.servable(plan.network, size, made.image.normalization)
    model.set_weights(kept.weights)
    # From here on the old run is gone, until the new one's mark stands.
    storage.remove(folder / RUN.mark)
    storage.remove(folder / publication.CONFIG)
    training_plots.accuracy(rounds, title, folder / ACCURACY)
    training_plots.loss(rounds, title, folder / LOSS)
    storage.move(folder / HISTORY_SO_FAR, folder / HISTORY)
    bundle.save(model, folder / bundle.MODEL)
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
        best_trial=kept.made.trial,
        best_accuracy=kept.made.validation_accuracy,
        best_class_accuracies=_by_class(kept, made.classes),
        seed=config.seed,
        sha256=bundle.digest(folder / bundle.MODEL),
        versions=provenance.versions(*_PACKAGES),
    )
    storage.write_text(folder / bundle.INFO, info.model_dump_json(indent=2) + "\n")
    config.write(folder / publication.CONFIG)
    storage.remove(folder / checkpoint.NAME)
    publication.clean(folder, RUN, keep=())
    return info


def _by_class(kept: Kept, classes: Sequence[str]) -> dict[str, float | None]:
    if kept.confusion is None:
        return {}
    found = measures.class_accuracies(np.array(kept.confusion))
    return dict(zip(classes, found, strict=True))


def summary(info: RunInfo, output: str) -> str:
    """The result of the job for a terminal: the history, the best model, and where it is."""
    folder = storage.local_path(output)
    found = "not validated" if info.best_accuracy is None else f"{info.best_accuracy:.2%}"
    return "\n".join(
        [
            history.table(history.read(folder / HISTORY)),
            "",
            f"{info.network}, {info.parameters:,} parameters; kept: step {info.best_step:,},"
            f" validation accuracy {found}",
            f"model {folder / bundle.MODEL}",
        ]
    )
