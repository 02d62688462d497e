"""The training loop: rounds of steps, each with a validation at its end.

It drives Keras callbacks, to which a round is an epoch.
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
from fer_pipeline.learning.training.history import History, ValidationRound
from fer_pipeline.learning.training.trainer import Trainer

_STEPS_BETWEEN_REPORTS = 50

_STEPS_PER_CALL = 10
"""Largest number of steps of one call of a `tf.function`, as Keras's steps_per_execution."""


@dataclass(frozen=True)
class StepSchedule:
    """The length of a run, and when it validates and writes checkpoints.

    Attributes:
        steps: Batches of the run.
        steps_per_epoch: Batches of one pass over the training split.
        validate_every: Batches between two validations.
        checkpoint_every: Batches between two checkpoints, in addition to the checkpoints at the end
            of each epoch and after each validation; None for no others.
    """

    steps: int
    steps_per_epoch: int
    validate_every: int
    checkpoint_every: int | None = None

    def count_steps_to_checkpoint(self, step: int) -> int:
        """Return the number of batches from a step to the next scheduled checkpoint."""
        periods = (self.steps_per_epoch, self.checkpoint_every or self.steps_per_epoch)
        return min(period - step % period for period in periods)


@dataclass
class TrainingLoop:
    """Training from the step that the trainer has reached to the end of the schedule.

    Attributes:
        trainer: Trainer of the network.
        train_loader: Batches of the training split.
        validation_loader: Batches of the validation split; None without one.
        schedule: Length of the run.
        history: History to which each round is added.
        callbacks: Keras callbacks.
        checkpointer: Writer of checkpoints; None for no checkpoints.
        restart: Number of the restart of the run, from 0.
    """

    trainer: Trainer
    train_loader: BatchLoader
    validation_loader: BatchLoader | None
    schedule: StepSchedule
    history: History
    callbacks: Sequence[keras.callbacks.Callback] = ()
    checkpointer: RunCheckpointer | None = None
    restart: int = 0
    _rows_of_round: int | None = field(default=None, init=False)

    def run(self) -> None:
        """Train to the end of the schedule, or until a callback stops the training.

        Raises:
            RunError: The loss or a weight is not finite.
            DatasetError: An epoch did not deliver the rows of the manifest.
            KeyboardInterrupt: Ctrl-C was pressed, even if a library swallowed the exception.
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
            self._validate({})
        batches = _BatchStream(self.train_loader, trainer.step)
        with tqdm(
            total=schedule.steps,
            initial=trainer.step,
            unit=" steps",
            desc="train",
            disable=None,
        ) as progress:
            while trainer.step < schedule.steps and not model.stop_training:
                index = trainer.step // schedule.validate_every
                callbacks.on_epoch_begin(index)
                logs = self._train_round(batches, callbacks, progress)
                with trainer.average.apply():
                    logs = self._validate(logs)
                    callbacks.on_epoch_end(index, logs)
                self._save_checkpoint()
        batches.close()
        with trainer.average.apply():
            callbacks.on_train_end(logs)

    def _save_checkpoint(self) -> None:
        if self.checkpointer:
            self.checkpointer.save()

    def _train_round(
        self, batches: _BatchStream, callbacks: keras.callbacks.CallbackList, progress: tqdm
    ) -> dict[str, float]:
        """Train to the end of the round and return its mean loss and accuracy."""
        trainer, schedule = self.trainer, self.schedule
        # The start of the round, which is before the first step of a run that resumes within it.
        start = trainer.step - trainer.step % schedule.validate_every
        end = min(start + schedule.validate_every, schedule.steps)
        while trainer.step < end and not trainer.model.stop_training:
            interrupts.raise_if_interrupted()
            callbacks.on_train_batch_begin(trainer.step)
            to_checkpoint = schedule.count_steps_to_checkpoint(trainer.step)
            count = batches.train(trainer, min(_STEPS_PER_CALL, end - trainer.step, to_checkpoint))
            callbacks.on_train_batch_end(trainer.step - 1)
            progress.update(count)
            # Reading a metric waits for the step, so the progress bar shows it only now and then.
            if trainer.step % _STEPS_BETWEEN_REPORTS < count:
                self._report(progress)
            if count == to_checkpoint and trainer.step < end:
                # A run resumed from a checkpoint with NaN could not recover.
                self._require_finite(trainer.compute_current_metrics()["loss"])
                self._save_checkpoint()
        totals = trainer.pop_metric_totals()
        self._require_finite(totals.means["loss"])
        self._require_complete_epochs(start, end, totals.image_count, batches)
        self._rows_of_round = totals.image_count
        return totals.means

    def _require_complete_epochs(
        self, start: int, end: int, rows: int, batches: _BatchStream
    ) -> None:
        """Check that all workers together had all rows in a round of whole epochs."""
        epochs, remainder = divmod(end - start, self.schedule.steps_per_epoch)
        was_stopped = self.trainer.step < end
        if was_stopped or remainder or start % self.schedule.steps_per_epoch:
            return
        if rows != epochs * self.train_loader.split_row_count:
            # If rows are missing in this worker's shard, its loader raises a more precise error.
            batches.close()
            raise DatasetError(
                f"training had {rows:,} rows in {epochs} epochs, the manifest says"
                f" {self.train_loader.split_row_count:,} in each; run preprocess again"
            )

    def _report(self, progress: tqdm) -> None:
        metrics = self.trainer.compute_current_metrics()
        self._require_finite(metrics["loss"])
        progress.set_postfix({name: f"{metric:.4f}" for name, metric in metrics.items()})

    def _require_finite(self, loss: float) -> None:
        self.trainer.require_finite(loss, self.schedule.steps_per_epoch)

    def _validate(self, logs: dict[str, float]) -> dict[str, float]:
        """Validate, add the round to the history and return its logs under Keras's names."""
        trainer, step = self.trainer, self.trainer.step
        metrics = trainer.evaluate(self.validation_loader) if self.validation_loader else {}
        self._require_finite(metrics.get("loss", 0.0))
        self.history.add(
            ValidationRound(
                step=step,
                epoch=math.ceil(step / self.schedule.steps_per_epoch),
                minibatch_loss=logs.get("loss"),
                minibatch_accuracy=logs.get("accuracy"),
                rows=self._rows_of_round,
                validation_loss=metrics.get("loss"),
                validation_accuracy=metrics.get("accuracy"),
                validation_mean_class_accuracy=metrics.get("mean_class_accuracy"),
                learning_rate=trainer.learning_rate if step else None,
                restart=self.restart,
            )
        )
        return {**logs, **{f"val_{name}": metric for name, metric in metrics.items()}}


class _BatchStream:
    """The batches of all epochs, without an end."""

    def __init__(self, loader: BatchLoader, step: int) -> None:
        """Start after a number of batches.

        Args:
            loader: Loader of the training split.
            step: Number of batches that were trained on before.
        """
        self._loader = loader
        self._epoch, self._batch = divmod(step, loader.steps_per_epoch)
        self._iterator: EpochIterator | None = None

    def close(self) -> None:
        """Check the last epoch for completeness if all of its batches were taken."""
        if self._iterator and self._batch == self._loader.steps_per_epoch:
            self._iterator.drain_and_verify()

    def train(self, trainer: Trainer, max_count: int) -> int:
        """Train on some batches and return their number.

        Args:
            trainer: Trainer of the network.
            max_count: Largest number of batches; there are fewer at the end of an epoch.
        """
        steps_per_epoch = self._loader.steps_per_epoch
        if self._iterator and self._batch == steps_per_epoch:
            self._iterator.drain_and_verify()
            self._epoch, self._batch, self._iterator = self._epoch + 1, 0, None
        if self._iterator is None:
            self._iterator = self._loader.open_epoch(self._epoch, skip_batches=self._batch)
        count = min(max_count, steps_per_epoch - self._batch)
        with self._iterator.translate_reader_errors():
            trainer.train_steps(self._iterator.batches, tf.constant(count))
        self._batch += count
        trainer.step += count
        return count
