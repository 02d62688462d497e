"""From the configuration to a run that is ready to begin, or to go on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fer_pipeline import calibration
from fer_pipeline.accounting import Split
from fer_pipeline.config import Config
from fer_pipeline.learning import networks
from fer_pipeline.learning.data.feed import Feed
from fer_pipeline.learning.model import bundle
from fer_pipeline.learning.training import (
    checkpoint,
    distillation,
    objective,
    optimization,
    precision,
    resuming,
)
from fer_pipeline.learning.training.callbacks import BestWeights
from fer_pipeline.learning.training.checkpoint import Checkpoint
from fer_pipeline.learning.training.history import History, Round
from fer_pipeline.learning.training.loop import Length, fit
from fer_pipeline.learning.training.objective import Objective
from fer_pipeline.learning.training.resuming import RunKeeper, identity
from fer_pipeline.learning.training.trainer import Trainer, make_repeatable
from fer_pipeline.learning.training.transform import transform
from fer_pipeline.learning.training.workers import ALONE, Workers
from fer_pipeline.manifest import Manifest

log = logging.getLogger(__name__)

HISTORY_SO_FAR, CONFIG_SO_FAR = "unfinished.csv", "unfinished.yaml"
"""Their names until the run has ended: the model that is replaced stays whole till then."""


@dataclass(frozen=True)
class Plan:
    """A run, set up.

    Attributes:
        data: The dataset's folder.
        folder: The run's.
        made: The dataset's manifest.
        config: The configuration.
        precision: In which the network computes.
        network: From normalised pixels to logits.
        trainer: Trains it.
        validation: The validation split, where there is one: of several workers, this one's part.
        initial: The state before the first step, where several restarts begin with it.
        teachers: The SHA-256 of each model that teaches it.
        worker: Which one this process is, of those that train it.
    """

    data: Path
    folder: Path
    made: Manifest
    config: Config
    precision: str
    network: keras.Model
    trainer: Trainer
    validation: Feed | None
    initial: Mapping[str, list[npt.NDArray[Any]]]
    teachers: Sequence[str]
    worker: Workers

    @classmethod
    def make(
        cls,
        data: Path,
        folder: Path,
        made: Manifest,
        config: Config,
        found: Checkpoint | None,
        worker: Workers = ALONE,
    ) -> Plan:
        """Builds the network and all that trains it.

        Raises:
            DatasetError: The dataset is damaged.
            ConfigError: There is no such network or option, or a key needs what is not there.
            RunError: The network could not be loaded once it is saved, or a teacher cannot be, or
                another number of workers is in the middle of an epoch.
        """
        chosen = config.training
        steps_per_epoch = open_train(data, made, config, worker).steps
        if found:
            resuming.require_same_workers(folder, found, worker.count, steps_per_epoch)
        validated = made.rows_of(Split.VALIDATION) > 0
        if not validated:
            optimization.require_validation(chosen)
        weights = objective.class_weights(chosen.class_weights, made.counts[Split.TRAIN])
        teachers = distillation.load(chosen.distillation, made)
        taught_by = [distillation.checksum(name) for name in chosen.distillation.teachers]
        make_repeatable(config.seed)
        computed = found.notes["precision"] if found else precision.resolve(chosen.precision)
        size, classes = made.image.size, len(made.classes)
        with precision.policy(computed), tf.distribute.get_strategy().scope():
            network = networks.build(config.model.name, size, classes, config.model.options)
        log.info(
            "%s has %s parameters and computes in %s",
            config.model.name,
            f"{network.count_params():,}",
            computed,
        )
        length = _length(config, steps_per_epoch)
        servable = bundle.servable(network, size, made.image.normalization)
        if networks.is_own(config.model.name):
            bundle.require_loadable(servable, config.model.name)
        trainer = Trainer(
            network,
            servable,
            optimization.make_optimizer(
                chosen.optimizer, chosen.schedule, length.steps, steps_per_epoch
            ),
            Objective(classes, chosen.label_smoothing, weights, chosen.distillation.weight),
            chosen.ema_decay,
            teachers,
        )
        validation = _feed(data, Split.VALIDATION, made, config, worker) if validated else None
        initial = trainer.state() if chosen.restarts > 1 else {}
        return cls(
            *(data, folder, made, config, computed, network, trainer),
            *(validation, initial, taught_by, worker),
        )

    def keeper(self, found: Checkpoint | None) -> RunKeeper:
        """What writes checkpoints, the history and the best weights, as they were left.

        Of several workers the chief writes them.
        """
        rounds = [Round(**made) for made in found.notes["rounds"]] if found else []
        chief = self.worker.is_chief
        made = History(self.folder / HISTORY_SO_FAR if chief else None, rounds)
        best = BestWeights(
            self.config.training.select_best_by,
            made,
            lambda: self.trainer.confusion,
            validated=self.validation is not None,
        )
        begun = {
            "config": self.config.to_dict(),
            "dataset": identity(self.made),
            "precision": self.precision,
            "teachers": self.teachers,
            "workers": self.worker.count,
        }
        path = self.folder / checkpoint.NAME if chief else None
        keeper = RunKeeper(path, self.trainer, made, best, begun)
        if found:
            keeper.restore(found)
            if not self.config.loader.deterministic:
                log.warning(
                    "with loader.deterministic: false, what is left of this epoch is not exactly"
                    " what was not yet trained on"
                )
        return keeper

    def temperature(self) -> float:
        """What the logits of the network, as it stands, are to be divided by."""
        chosen = self.config.model.temperature
        if chosen or self.validation is None:
            return chosen or 1.0
        # All of the split, by a worker that may be one of several.
        whole = _feed(self.data, Split.VALIDATION, self.made, self.config, ALONE)
        answers = [
            (self.network(images, training=False).numpy(), labels)
            for images, labels in whole.epoch(0)
        ]
        logits, labels = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        return calibration.fit_temperature(logits.astype(np.float64), labels)

    def begin_again(self) -> None:
        """Makes the network and its optimiser what they were before the first step."""
        self.trainer.restore(self.initial, 0)

    def run(
        self, keeper: RunKeeper, restart: int, trackers: Sequence[keras.callbacks.Callback]
    ) -> None:
        """Trains one restart from where it stands to its end."""
        train = open_train(self.data, self.made, self.config, self.worker, restart)
        keeper.restart, keeper.watching = restart, optimization.watchers(self.config.training)
        fit(
            self.trainer,
            train,
            self.validation,
            _length(self.config, train.steps),
            keeper.history,
            [*keeper.watching, keeper.best, *trackers],
            keeper,
            restart,
        )


def open_train(
    data: Path, made: Manifest, config: Config, worker: Workers, restart: int = 0
) -> Feed:
    """The training split: of several workers, this one's part.

    Raises:
        DatasetError: The dataset is damaged, or a part has too few rows.
    """
    return _feed(data, Split.TRAIN, made, config, worker, restart)


def _feed(
    data: Path, split: Split, made: Manifest, config: Config, worker: Workers, restart: int = 0
) -> Feed:
    chosen, train = config.loader, split is Split.TRAIN
    change = transform(config.training, made.image.size, len(made.classes)) if train else None
    return Feed(
        data,
        split,
        chosen.batch_size if train else config.inference.batch_size,
        shuffle=train,
        seed=_order(config.seed, restart),
        deterministic=chosen.deterministic,
        cache_in_memory=chosen.cache_in_memory,
        shuffle_buffer=chosen.shuffle_buffer,
        shard=worker.number,
        shards=worker.count,
        soft=train,
        transform=change,
    )


def _order(seed: int, restart: int) -> int:
    """The seed of a restart's order of samples."""
    return int(np.random.SeedSequence([seed, restart]).generate_state(1)[0]) if restart else seed


def _length(config: Config, steps_per_epoch: int) -> Length:
    chosen = config.training
    steps = chosen.steps or (chosen.epochs or 1) * steps_per_epoch
    every = min(chosen.validate_every_steps or steps_per_epoch, steps)
    return Length(steps, steps_per_epoch, every, chosen.checkpoint_every_steps)
