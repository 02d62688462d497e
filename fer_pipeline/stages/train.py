"""From a dataset to a trained model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fer_pipeline import manifest, provenance, publication, storage
from fer_pipeline.accounting import Split
from fer_pipeline.config import Config
from fer_pipeline.learning import bundle, networks, training_plots
from fer_pipeline.learning.bundle import RunInfo
from fer_pipeline.learning.callbacks import BestModel, Report
from fer_pipeline.learning.feed import Feed
from fer_pipeline.learning.history import History
from fer_pipeline.learning.training import Length, Trainer, make_repeatable
from fer_pipeline.manifest import Manifest
from fer_pipeline.publication import RUN

log = logging.getLogger(__name__)

HISTORY, ACCURACY, LOSS = "history.csv", "accuracy.png", "loss.png"
# Under these names until the run has ended, so that a run that is replaced stays whole till then.
_BEST_SO_FAR, _HISTORY_SO_FAR = "unfinished.keras", "unfinished.csv"
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "petastorm")


def train(dataset: str, output: str, config: Config, *, overwrite: bool = False) -> RunInfo:
    """Trains a network.

    `model.json` is written last: a folder without it is no finished run.

    Args:
        dataset: The dataset's folder.
        output: The run's folder.
        config: The configuration.
        overwrite: Whether a finished run that is there may be replaced.

    Returns:
        What the finished run says of its model.

    Raises:
        DatasetError: The dataset is none, is damaged, or has no training rows.
        ConfigError: There is no such network or option.
        RunError: The loss is no number any more.
        StorageError: There is a finished run already, or the folder holds something else.
    """
    data, folder = storage.local_path(dataset), storage.local_path(output)
    publication.claim(folder, RUN, overwrite=overwrite)
    made = manifest.read(data)
    train_feed = _feed(data, Split.TRAIN, config)
    validation = _feed(data, Split.VALIDATION, config) if made.rows_of(Split.VALIDATION) else None
    make_repeatable(config.seed)
    size, classes = made.image.size, made.classes
    network = networks.build(config.model.name, size, len(classes), config.model.options)
    driven = bundle.servable(network, size, made.image.normalization)
    log.info("%s has %s parameters", config.model.name, f"{network.count_params():,}")

    publication.begin(folder)
    history = History(folder / _HISTORY_SO_FAR)
    # A wrapper of its own: what the callbacks drive is compiled, what is saved is not.
    exported = bundle.servable(network, size, made.image.normalization)
    best = BestModel(exported, folder / _BEST_SO_FAR, history, validated=validation is not None)
    length = _length(config, train_feed.steps)
    trainer = Trainer(network, driven, config.training.learning_rate)
    trainer.fit(train_feed, validation, length, history, [best, Report(history)])
    return _publish(folder, best, history, network, made, config)


def _feed(data: Path, split: Split, config: Config) -> Feed:
    chosen = config.feed
    return Feed(
        data,
        split,
        chosen.batch_size if split is Split.TRAIN else config.inference.batch_size,
        shuffle=split is Split.TRAIN,
        seed=config.seed,
        deterministic=chosen.deterministic,
        cache=chosen.cache,
        shuffle_buffer=chosen.shuffle_buffer,
    )


def _length(config: Config, steps_per_epoch: int) -> Length:
    chosen = config.training
    steps = chosen.steps or (chosen.epochs or 1) * steps_per_epoch
    every = min(chosen.validate_every or steps_per_epoch, steps)
    return Length(steps, steps_per_epoch, every)


def _publish(
    folder: Path,
    best: BestModel,
    history: History,
    network: Any,
    made: Manifest,
    config: Config,
) -> RunInfo:
    size = made.image.size
    title = f"{config.model.name} on {len(made.classes)} classes, {size}x{size}"
    # From here on the old run is gone, until the new one's mark stands.
    storage.remove(folder / RUN.mark)
    storage.remove(folder / publication.CONFIG)
    training_plots.accuracy(history.rounds, title, folder / ACCURACY)
    training_plots.loss(history.rounds, title, folder / LOSS)
    storage.move(folder / _HISTORY_SO_FAR, folder / HISTORY)
    storage.move(best.path, folder / bundle.MODEL)
    info = RunInfo(
        classes=made.classes,
        size=size,
        normalization=made.image.normalization,
        dataset_checksum=made.checksum,
        network=config.model.name,
        options=config.model.options,
        parameters=network.count_params(),
        best_step=best.step,
        best_accuracy=best.accuracy,
        seed=config.seed,
        sha256=bundle.digest(folder / bundle.MODEL),
        versions=provenance.versions(*_PACKAGES),
    )
    storage.write_text(folder / bundle.INFO, info.model_dump_json(indent=2) + "\n")
    config.write(folder / publication.CONFIG)
    publication.clean(folder, RUN, keep=())
    return info


def summary(info: RunInfo, output: str) -> str:
    """The result of the job for a terminal: the history, the best model, and where it is."""
    folder = storage.local_path(output)
    lines = (folder / HISTORY).read_text(encoding="utf-8").splitlines()
    header, *rows = (line.split(",") for line in lines)
    width = [max(len(name), 8) for name in header]

    def shown(name: str, value: str) -> str:
        if not value or name in ("step", "epoch"):
            return value or "-"
        return f"{float(value):.2%}" if "accuracy" in name else f"{float(value):.4f}"

    table = ["  ".join(name.rjust(w) for name, w in zip(header, width, strict=True))]
    for row in rows:
        cells = [shown(name, value) for name, value in zip(header, row, strict=True)]
        table.append("  ".join(cell.rjust(w) for cell, w in zip(cells, width, strict=True)))
    found = "not validated" if info.best_accuracy is None else f"{info.best_accuracy:.2%}"
    return "\n".join(
        [
            *table,
            "",
            f"{info.network}, {info.parameters:,} parameters; kept: step {info.best_step:,},"
            f" validation accuracy {found}",
            f"model {folder / bundle.MODEL}",
        ]
    )
