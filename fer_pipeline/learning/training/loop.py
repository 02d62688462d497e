"""The training loop: training steps with a validation at regular intervals.

Keras callbacks are called as if each interval between two validations were an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import keras
import tensorflow as tf
from tqdm import tqdm

from fer_pipeline.errors import DatasetError
from fer_pipeline.io import interrupts
from fer_pipeline.learning.input.batch_loader import BatchLoader
from fer_pipeline.learning.input.epoch_iterator import EpochIterator
from fer_pipeline.learning.training.checkpointer import RunCheckpointer
from fer_pipeline.learning.training.history import History, HistoryEntry
from fer_pipeline.learning.training.trainer import Trainer

_STEPS_BETWEEN_REPORTS = 50
"""Number of steps between two updates of the metrics in the progress bar."""

_MAX_STEPS_PER_CALL = 10
"""Largest number of steps in one call of a `tf.function`, like Keras's `steps_per_execution`."""


@dataclass(frozen=True)
class StepSchedule:
    """The length of a run, and its intervals between validations and between checkpoints.

    Attributes:
        steps: Number of steps of the run; a step trains on one batch.
        steps_per_epoch: Number of steps in one epoch.
        validate_every: Number of steps between two validations.
        checkpoint_every: Number of steps between two checkpoints, in addition to the checkpoints
            at the end of each epoch and after each validation; None for no additional checkpoints.
    """

    steps: int
    steps_per_epoch: int
    validate_every: int
    checkpoint_every: int | None = None

    def count_steps_to_checkpoint(self, step: int) -> int:
        """Return the number of steps from a step to the next checkpoint; at least 1.

        Only the checkpoints at the end of each epoch and every `checkpoint_every` steps count, not
        the additional checkpoints after validations.

        Args:
            step: Number of steps so far.
        """
        periods = (self.steps_per_epoch, self.checkpoint_every or self.steps_per_epoch)
        return min(period - step % period for period in periods)


@dataclass
class TrainingLoop:
    """A loop that trains from the trainer's current step to the end of the schedule.

    Attributes:
        trainer: Trainer of the network.
        train_loader: Loader of the training split.
        validation_loader: Loader of the validation split; None if there is no such split.
        schedule: Length of the run and intervals between validations and checkpoints.
        history: History, to which each validation adds an entry.
        callbacks: Keras callbacks, which are called as if each interval between two validations
            were an epoch.
        checkpointer: Writer of checkpoints; None for no checkpoints.
        restart: Index of the current restart of the run, from 0.
    """

    trainer: Trainer
    train_loader: BatchLoader
    validation_loader: BatchLoader | None
    schedule: StepSchedule
    history: History
    callbacks: Sequence[keras.callbacks.Callback] = ()
    checkpointer: RunCheckpointer | None = None
    restart: int = 0
    _image_count: int | None = field(default=None, init=False)

    def run(self) -> None:
        """Train to the end of the schedule, or until a callback stops the training.

        The network is validated and checkpoints are written as scheduled. A run with no completed
        steps begins with a validation.

        Raises:
            RunError: The loss or a weight is not finite.
            DatasetError: The number of rows of an epoch differs from the dataset's manifest.
            KeyboardInterrupt: Ctrl-C was pressed. It is raised even if a library has caught
                Python's own KeyboardInterrupt.
        """
        trainer, model, schedule = self.trainer, self.trainer.model, self.schedule
        callbacks = keras.callbacks.CallbackList(
            list(self.callbacks),
            model=model,
            epochs=math.ceil(schedule.steps / schedule.validate_every),
            steps=schedule.validate_every,
        )
        model.stop_training = False
        callbacks.on_train_begin()
        if self.checkpointer:
            self.checkpointer.restore_callbacks()
        logs: dict[str, float] = {}
        if not trainer.step:
            self._validate_and_record({})
        batches = _BatchSequence(self.train_loader, trainer.step)
        with tqdm(
            total=schedule.steps,
            initial=trainer.step,
            unit=" steps",
            desc="train",
            disable=None,
        ) as progress:
            while trainer.step < schedule.steps and not model.stop_training:
                keras_epoch = trainer.step // schedule.validate_every
                callbacks.on_epoch_begin(keras_epoch)
                logs = self._train_until_validation(batches, callbacks, progress)
                with trainer.average.use_averages():
                    logs = self._validate_and_record(logs)
                    callbacks.on_epoch_end(keras_epoch, logs)
                self._save_checkpoint()
        batches.verify_completed_epoch()
        with trainer.average.use_averages():
            callbacks.on_train_end(logs)

    def _save_checkpoint(self) -> None:
        """Write a checkpoint, if the run has a checkpointer."""
        if self.checkpointer:
            self.checkpointer.save()

    def _train_until_validation(
        self, batches: _BatchSequence, callbacks: keras.callbacks.CallbackList, progress: tqdm
    ) -> dict[str, float]:
        """Train until the next validation, or until a callback stops the training.

        Checkpoints that are due before the validation are written.

        Returns:
            Mean `loss` and `accuracy` of all steps since the previous validation.

        Raises:
            RunError: The loss or a weight is not finite.
            DatasetError: The number of rows of an epoch differs from the dataset's manifest.
        """
        trainer, schedule = self.trainer, self.schedule
        # Validations are at multiples of the interval, even if a run is resumed between two.
        start = trainer.step - trainer.step % schedule.validate_every
        end = min(start + schedule.validate_every, schedule.steps)
        while trainer.step < end and not trainer.model.stop_training:
            interrupts.raise_if_interrupted()
            callbacks.on_train_batch_begin(trainer.step)
            steps_to_checkpoint = schedule.count_steps_to_checkpoint(trainer.step)
            max_step_count = min(_MAX_STEPS_PER_CALL, end - trainer.step, steps_to_checkpoint)
            step_count = batches.train_on_next_batches(trainer, max_step_count)
            callbacks.on_train_batch_end(trainer.step - 1)
            progress.update(step_count)
            # Reading a metric waits for the end of the step, so the progress bar shows the metrics
            # only every 50 steps.
            if trainer.step % _STEPS_BETWEEN_REPORTS < step_count:
                self._check_and_show_metrics(progress)
            if step_count == steps_to_checkpoint and trainer.step < end:
                # A run that is resumed from a checkpoint with NaN could not recover.
                self._require_finite(trainer.compute_current_metrics()["loss"])
                self._save_checkpoint()
        totals = trainer.pop_metric_totals()
        self._require_finite(totals.means["loss"])
        self._require_epoch_row_count(start, end, totals.image_count, batches)
        self._image_count = totals.image_count
        return totals.means

    def _require_epoch_row_count(
        self, start: int, end: int, row_count: int, batches: _BatchSequence
    ) -> None:
        """Check the number of rows on which all workers trained between two validations.

        The check is skipped if the steps between the validations are not complete epochs, or if a
        callback stopped the training before the second validation.

        Args:
            start: Number of completed steps at the first validation.
            end: Number of completed steps at the second validation.
            row_count: Number of rows on which all workers together trained in between.
            batches: Training batches of this worker.

        Raises:
            DatasetError: The number of rows differs from the manifest.
        """
        epoch_count, remainder = divmod(end - start, self.schedule.steps_per_epoch)
        was_stopped = self.trainer.step < end
        if was_stopped or remainder or start % self.schedule.steps_per_epoch:
            return
        if row_count != epoch_count * self.train_loader.split_row_count:
            # If rows are missing in this worker's shard, its loader raises a more precise error.
            batches.verify_completed_epoch()
            raise DatasetError(
                f"training had {row_count:,} rows in {epoch_count} epochs, the manifest says"
                f" {self.train_loader.split_row_count:,} in each; run preprocess again"
            )

    def _check_and_show_metrics(self, progress: tqdm) -> None:
        """Check the loss and the weights, and show the loss and accuracy in the progress bar.

        The loss and the accuracy are means over the steps since the last validation.

        Raises:
            RunError: The loss or a weight is not finite.
        """
        metrics = self.trainer.compute_current_metrics()
        self._require_finite(metrics["loss"])
        progress.set_postfix({name: f"{metric:.4f}" for name, metric in metrics.items()})

    def _require_finite(self, loss: float) -> None:
        """Check that a loss and all weights of the network are finite.

        Raises:
            RunError: The loss or a weight is not finite.
        """
        self.trainer.require_finite(loss, self.schedule.steps_per_epoch)

    def _validate_and_record(self, logs: dict[str, float]) -> dict[str, float]:
        """Validate the network, if there is a validation split, and add an entry to the history.

        Args:
            logs: Mean training loss and accuracy since the previous validation; empty before the
                first step.

        Returns:
            The metrics of both splits under Keras's names, such as `loss` and `val_loss`.

        Raises:
            RunError: The validation loss or a weight is not finite.
        """
        trainer, step = self.trainer, self.trainer.step
        metrics = trainer.evaluate(self.validation_loader) if self.validation_loader else {}
        self._require_finite(metrics.get("loss", 0.0))
        self.history.add(
            HistoryEntry(
                step=step,
                epoch=math.ceil(step / self.schedule.steps_per_epoch),
                minibatch_loss=logs.get("loss"),
                minibatch_accuracy=logs.get("accuracy"),
                rows=self._image_count,
                validation_loss=metrics.get("loss"),
                validation_accuracy=metrics.get("accuracy"),
                validation_mean_class_accuracy=metrics.get("mean_class_accuracy"),
                learning_rate=trainer.learning_rate if step else None,
                restart=self.restart,
            )
        )
        return {**logs, **{f"val_{name}": metric for name, metric in metrics.items()}}


class _BatchSequence:
    """The training batches of all epochs, one epoch after the other."""

    def __init__(self, loader: BatchLoader, step: int) -> None:
        """Create the sequence.

        Args:
            loader: Loader of the training split.
            step: Number of batches on which the run has already trained; these are skipped.
        """
        self._loader = loader
        self._epoch, self._next_batch = divmod(step, loader.steps_per_epoch)
        self._iterator: EpochIterator | None = None

    def verify_completed_epoch(self) -> None:
        """Check the number of rows of the current epoch after its last batch.

        Does nothing in the middle of an epoch.

        Raises:
            DatasetError: The number of rows differs from the dataset's manifest, or reading failed.
        """
        if self._iterator and self._next_batch == self._loader.steps_per_epoch:
            self._iterator.drain_and_verify()

    def train_on_next_batches(self, trainer: Trainer, max_step_count: int) -> int:
        """Train on the next batches, up to the end of the epoch, and return their number.

        The number is also added to `trainer.step`. If the previous call completed an epoch, the
        next epoch begins, after a check of the previous epoch's number of rows.

        Args:
            trainer: Trainer of the network.
            max_step_count: Largest number of batches to train on.

        Raises:
            DatasetError: The dataset cannot be read, or the previous epoch's number of rows differs
                from the dataset's manifest.
        """
        steps_per_epoch = self._loader.steps_per_epoch
        if self._iterator and self._next_batch == steps_per_epoch:
            self._iterator.drain_and_verify()
            self._epoch, self._next_batch, self._iterator = self._epoch + 1, 0, None
        if self._iterator is None:
            self._iterator = self._loader.open_epoch(self._epoch, skip_batches=self._next_batch)
        step_count = min(max_step_count, steps_per_epoch - self._next_batch)
        with self._iterator.translate_reader_errors():
            trainer.train_on_batches(self._iterator.batches, tf.constant(step_count))
        self._next_batch += step_count
        trainer.step += step_count
        return step_count
