"""Building of a training run from the configuration, and training of its restarts.

A run consists of one or more restarts. Each restart trains the network from the same initial
weights, with a different order of the rows. If there are several restarts, the best weights of all
of them are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from fer_pipeline.config import Config
from fer_pipeline.config.training import TEMPERATURE_RANGE
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.input.batch_loader import BatchLoader
from fer_pipeline.learning.networks import registry
from fer_pipeline.learning.training import (
    distillation,
    optimizers,
    precision,
    resume_checks,
    settings_checks,
)
from fer_pipeline.learning.training.callbacks import BestWeights
from fer_pipeline.learning.training.checkpoint import Checkpoint, RunSetup, StateArrays
from fer_pipeline.learning.training.checkpointer import RunCheckpointer
from fer_pipeline.learning.training.distillation import TeacherEnsemble
from fer_pipeline.learning.training.distributed import SINGLE_WORKER, WorkerContext
from fer_pipeline.learning.training.history import History
from fer_pipeline.learning.training.loop import StepSchedule, TrainingLoop
from fer_pipeline.learning.training.losses import ClassificationLoss
from fer_pipeline.learning.training.split_loaders import open_train_loader, open_validation_loader
from fer_pipeline.learning.training.teachers import read_teacher_checksum
from fer_pipeline.learning.training.trainer import Trainer, enable_determinism
from fer_pipeline.metrics import calibration

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRun:
    """The network, the trainer and the inputs of a run that is ready for training.

    Attributes:
        folder: Output folder of the run.
        dataset: Dataset on which the network is trained.
        config: The configuration.
        precision: Precision in which the network computes: `float32` or `mixed_bfloat16`.
        network: Network that maps normalised pixels to logits.
        trainer: Trainer of the network.
        validation_loader: Loader of this worker's shard of the validation split; None if there is
            no such split.
        initial_state: Arrays of all variables before the first step, with which each restart
            begins; empty if there is only one restart.
        teacher_checksums: SHA-256 of each teacher's model, in hexadecimal digits.
        worker: Rank of this process and number of workers.
    """

    folder: Path
    dataset: StoredDataset
    config: Config
    precision: str
    network: keras.Model
    trainer: Trainer
    validation_loader: BatchLoader | None
    initial_state: StateArrays
    teacher_checksums: Sequence[str]
    worker: WorkerContext

    @classmethod
    def build(
        cls,
        dataset: StoredDataset,
        folder: Path,
        config: Config,
        checkpoint: Checkpoint | None,
        worker: WorkerContext = SINGLE_WORKER,
    ) -> TrainingRun:
        """Build the network and its trainer, and open the loader of the validation split.

        Also seed all random generators of this process, and make TensorFlow's operations
        reproducible.

        Args:
            dataset: Dataset on which the network is trained.
            folder: Output folder of the run.
            config: The configuration.
            checkpoint: Checkpoint from which the run is resumed; None for a new run.
            worker: Rank of this process and number of workers.

        Raises:
            DatasetError: The dataset is damaged.
            ConfigError: The network or one of its options is unknown, a setting does not fit the
                dataset, or the warm-up is not shorter than the run.
            RunError: A custom network cannot be saved or loaded again, a teacher cannot be loaded,
                or the number of workers has changed in the middle of an epoch.
        """
        training = config.training
        steps_per_epoch = open_train_loader(dataset, config, worker).steps_per_epoch
        if checkpoint:
            resume_checks.require_matching_worker_count(
                folder, checkpoint.state, worker.world_size, steps_per_epoch
            )
        has_validation = dataset.row_count(Split.VALIDATION) > 0
        if not has_validation:
            settings_checks.reject_settings_needing_validation(training)
        loss = _make_loss(config, dataset)
        teachers = distillation.load_teachers(training.distillation, dataset)
        teacher_names = training.distillation.teachers
        teacher_checksums = [read_teacher_checksum(name) for name in teacher_names]
        enable_determinism(config.seed)
        resolved_precision = (
            checkpoint.state.precision
            if checkpoint
            else precision.resolve_precision(training.precision)
        )
        network = _build_network(config, dataset, resolved_precision)
        trainer = _build_trainer(
            network, dataset, config, loss, teachers, _make_schedule(config, steps_per_epoch)
        )
        return cls(
            folder=folder,
            dataset=dataset,
            config=config,
            precision=resolved_precision,
            network=network,
            trainer=trainer,
            validation_loader=open_validation_loader(dataset, config, worker)
            if has_validation
            else None,
            initial_state=trainer.get_state() if training.restarts > 1 else {},
            teacher_checksums=teacher_checksums,
            worker=worker,
        )

    def make_checkpointer(self, checkpoint: Checkpoint | None) -> RunCheckpointer:
        """Create the history and the checkpointer, and restore the checkpoint if there is one.

        An existing history file is replaced. If there are several workers, only worker 0 writes the
        history and the checkpoints.

        Args:
            checkpoint: Checkpoint from which the run is resumed; None for a new run.

        Raises:
            RunError: The checkpoint belongs to a different network or optimizer.
            StorageError: The history cannot be written.
        """
        is_chief = self.worker.is_chief
        entries = checkpoint.state.entries if checkpoint else []
        history = (
            History.create(self.folder / RunFile.UNFINISHED_HISTORY, entries)
            if is_chief
            else History(entries)
        )
        checkpointer = RunCheckpointer(
            path=self.folder / RunFile.CHECKPOINT if is_chief else None,
            trainer=self.trainer,
            history=history,
            best=BestWeights(
                self.config.training.select_best_by,
                history,
                lambda: self.trainer.confusion,
                has_validation=self.validation_loader is not None,
            ),
            setup=RunSetup(
                config=self.config.to_dict(),
                dataset=resume_checks.make_dataset_signature(self.dataset),
                precision=self.precision,
                teachers=[*self.teacher_checksums],
                workers=self.worker.world_size,
            ),
        )
        if checkpoint:
            checkpointer.restore(checkpoint)
            if not self.config.loader.deterministic:
                log.warning(
                    "with loader.deterministic: false, the rest of this epoch may repeat some"
                    " images and leave out others"
                )
        return checkpointer

    def choose_temperature(self) -> float:
        """Return the softmax temperature, by which the logits are divided.

        Returns:
            The configured temperature. If none is configured, it is fitted to the logits of the
            validation split, computed with the current weights. Without a validation split, it
            is 1.
        """
        temperature = self.config.model.temperature
        if temperature or self.validation_loader is None:
            return temperature or 1.0
        # Load the whole split, even if this process is one of several workers.
        loader = open_validation_loader(self.dataset, self.config, SINGLE_WORKER)
        batches = [
            (self.network(images, training=False).numpy(), labels)
            for images, labels in loader.iterate_epoch(0)
        ]
        logits, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        return calibration.fit_temperature(logits.astype(np.float64), labels, TEMPERATURE_RANGE)

    def reset_to_initial_state(self) -> None:
        """Set the weights, the optimizer and the metrics to their state before the first step.

        Call this method only if there are several restarts. For a single restart, that state is not
        stored.
        """
        self.trainer.restore(self.initial_state, 0)

    def run_restart(
        self,
        checkpointer: RunCheckpointer,
        restart: int,
        loggers: Sequence[keras.callbacks.Callback],
    ) -> None:
        """Train one restart from the trainer's current step to the end of the schedule.

        A run trains the network `training.restarts` times from the same initial weights. Each
        training is a restart. The history, the best weights and the checkpoints are updated
        meanwhile.

        Args:
            checkpointer: Checkpointer of the run, which also holds the history and the best
                weights.
            restart: Index of the restart, from 0.
            loggers: Callbacks that log each validation.

        Raises:
            RunError: The loss or a weight is not finite.
            DatasetError: An epoch did not have the number of rows that the dataset's manifest
                states.
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        train_loader = open_train_loader(self.dataset, self.config, self.worker, restart)
        monitor_callbacks = optimizers.make_monitor_callbacks(self.config.training)
        checkpointer.restart, checkpointer.monitor_callbacks = restart, monitor_callbacks
        loop = TrainingLoop(
            trainer=self.trainer,
            train_loader=train_loader,
            validation_loader=self.validation_loader,
            schedule=_make_schedule(self.config, train_loader.steps_per_epoch),
            history=checkpointer.history,
            callbacks=[*monitor_callbacks, checkpointer.best, *loggers],
            checkpointer=checkpointer,
            restart=restart,
        )
        loop.run()


def _make_schedule(config: Config, steps_per_epoch: int) -> StepSchedule:
    """Return the run's number of steps, and how often to validate and to write a checkpoint."""
    training = config.training
    steps = settings_checks.count_steps(training, steps_per_epoch)
    return StepSchedule(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        validate_every=min(training.validate_every_steps or steps_per_epoch, steps),
        checkpoint_every=training.checkpoint_every_steps,
    )


def _make_loss(config: Config, dataset: StoredDataset) -> ClassificationLoss:
    """Return the training loss, which is a cross-entropy.

    The configuration determines the label smoothing, the class weights and the distillation weight.

    Raises:
        ConfigError: The configured class weights contain an unknown class.
    """
    training = config.training
    return ClassificationLoss(
        len(dataset.classes),
        label_smoothing=training.label_smoothing,
        class_weights=settings_checks.compute_class_weights(
            training.class_weights, dataset.manifest.counts[Split.TRAIN]
        ),
        distillation_weight=training.distillation.weight,
    )


def _build_network(config: Config, dataset: StoredDataset, precision_name: str) -> keras.Model:
    """Build the configured network for the dataset's image size and classes.

    The precision and the number of parameters are logged.

    Args:
        config: The configuration.
        dataset: Dataset on which the network is trained.
        precision_name: Precision in which the network computes: `float32` or `mixed_bfloat16`.

    Raises:
        ConfigError: The network or an option of it is unknown, or the network cannot be built.
    """
    with precision.use_precision(precision_name), tf.distribute.get_strategy().scope():
        network = registry.build_network(
            config.model.name, dataset.image_size, len(dataset.classes), config.model.options
        )
    log.info(
        "%s has %s parameters and computes in %s",
        config.model.name,
        f"{network.count_params():,}",
        precision_name,
    )
    return network


def _build_trainer(
    network: keras.Model,
    dataset: StoredDataset,
    config: Config,
    loss: ClassificationLoss,
    teachers: TeacherEnsemble | None,
    schedule: StepSchedule,
) -> Trainer:
    """Build the trainer of a network, including a serving model and an optimizer.

    The serving model consists of the normalisation of raw pixels, the network and a softmax.

    Raises:
        ConfigError: The warm-up is not shorter than the run.
        RunError: The model of a custom network cannot be saved or loaded again.
    """
    normalization = dataset.manifest.image.normalization
    model = serving_model.build_serving_model(network, dataset.image_size, normalization)
    if registry.is_custom_network(config.model.name):
        serving_model.require_loadable_model(model, config.model.name)
    training = config.training
    optimizer = optimizers.make_optimizer(
        training.optimizer, training.schedule, schedule.steps, schedule.steps_per_epoch
    )
    return Trainer(network, model, optimizer, loss, ema_decay=training.ema_decay, teachers=teachers)
