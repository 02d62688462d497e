"""The training loop: rounds of steps, each with a validation at its end.

It drives Keras's own callbacks: what lies between two validations is a round, and their epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import keras
import tensorflow as tf
from tqdm import tqdm

from fer_pipeline import interruption
from fer_pipeline.errors import DatasetError
from fer_pipeline.learning.data.feed import Epoch, Feed
from fer_pipeline.learning.training.history import History, Round
from fer_pipeline.learning.training.trainer import Trainer

_STEPS_BETWEEN_REPORTS = 50
# As Keras's steps_per_execution: callbacks hear of batches so many at a time.
_STEPS_AT_ONCE = 10


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Attributes:
        steps: Batches in all.
        steps_per_epoch: Batches of one pass over the training split.
        validate_every: Batches between two validations.
        checkpoint_every: Batches between two checkpoints, beside those at the end of each epoch
            and after each validation; None for no others.
    """

    steps: int
    steps_per_epoch: int
    validate_every: int
    checkpoint_every: int | None = None

    def until_checkpoint(self, step: int) -> int:
        """How many batches are left after so many to the next one's end with a checkpoint."""
        periods = (self.steps_per_epoch, self.checkpoint_every or self.steps_per_epoch)
        return min(period - step % period for period in periods)


class Keeper(Protocol):
    """Keeps a run, so that another process can go on with it."""

    def begin(self) -> None:
        """Gives the callbacks their state back, once they have begun."""

    def save(self) -> None:
        """Keeps the run as it is."""


def fit(
    trainer: Trainer,
    train: Feed,
    validation: Feed | None,
    length: Length,
    history: History,
    callbacks: Sequence[keras.callbacks.Callback],
    keeper: Keeper | None = None,
    restart: int = 0,
) -> None:
    """Trains from the step that the trainer has reached to the end.

    Args:
        trainer: What is trained.
        train: The training split.
        validation: The validation split, where there is one.
        length: How long.
        history: Where each round is written.
        callbacks: Keras's callbacks; a round is their epoch.
        keeper: Is told when to keep the run.
        restart: Which of several runs this is, from 0.

    Raises:
        RunError: The loss is no number any more.
        DatasetError: An epoch did not deliver the rows of the manifest.
        KeyboardInterrupt: There was a Ctrl-C, even one that something in between swallowed.
    """
    rounds = math.ceil(length.steps / length.validate_every)
    driven = keras.callbacks.CallbackList(
        list(callbacks), model=trainer.model, epochs=rounds, steps=length.validate_every
    )
    loop = _Loop(trainer, train, validation, length, history, driven, keeper, restart)
    loop.run()


@dataclass
class _Loop:
    """One call of `fit`."""

    trainer: Trainer
    train: Feed
    validation: Feed | None
    length: Length
    history: History
    driven: keras.callbacks.CallbackList
    keeper: Keeper | None
    restart: int
    _rows: int | None = None  # of the last round

    def run(self) -> None:
        trainer, model = self.trainer, self.trainer.model
        model.stop_training = False
        self.driven.on_train_begin()
        if self.keeper:
            self.keeper.begin()
        logs: dict[str, float] = {}
        if not trainer.step:
            self._validate({})
        batches = _Batches(self.train, trainer.step)
        with tqdm(
            total=self.length.steps,
            initial=trainer.step,
            unit=" steps",
            desc="train",
            disable=None,
        ) as progress:
            while trainer.step < self.length.steps and not model.stop_training:
                index = trainer.step // self.length.validate_every
                self.driven.on_epoch_begin(index)
                logs = self._train_round(batches, progress)
                with trainer.average.applied():
                    logs = self._validate(logs)
                    self.driven.on_epoch_end(index, logs)
                self._save()
        batches.close()
        with trainer.average.applied():
            self.driven.on_train_end(logs)

    def _save(self) -> None:
        if self.keeper:
            self.keeper.save()

    def _train_round(self, batches: _Batches, progress: tqdm) -> dict[str, float]:
        trainer, length = self.trainer, self.length
        # From the start of the round, which a resumed run may have behind it.
        begun = trainer.step - trainer.step % length.validate_every
        end = min(begun + length.validate_every, length.steps)
        while trainer.step < end and not trainer.model.stop_training:
            interruption.check()
            self.driven.on_train_batch_begin(trainer.step)
            left = length.until_checkpoint(trainer.step)
            count = batches.run(trainer, min(_STEPS_AT_ONCE, end - trainer.step, left))
            self.driven.on_train_batch_end(trainer.step - 1)
            progress.update(count)
            # Reading a metric waits for the step, so the bar is told now and then.
            if trainer.step % _STEPS_BETWEEN_REPORTS < count:
                self._report(progress)
            if count == left and trainer.step < end:
                # A checkpoint of a broken run could only go on being broken.
                self._require_finite(trainer.measured()["loss"])
                self._save()
        found = trainer.round()
        self._require_finite(found.results["loss"])
        self._require_whole(begun, end, found.rows, batches)
        self._rows = found.rows
        return found.results

    def _require_whole(self, begun: int, end: int, rows: int, batches: _Batches) -> None:
        """Of a round of whole epochs, makes sure that all workers together had all rows."""
        epochs, rest = divmod(end - begun, self.length.steps_per_epoch)
        stopped = self.trainer.step < end
        if stopped or rest or begun % self.length.steps_per_epoch:
            return
        if rows != epochs * self.train.split_rows:
            # Where it is this worker's part that is wrong, its feed knows more of it.
            batches.close()
            raise DatasetError(
                f"training had {rows:,} rows in {epochs} epochs, the manifest says"
                f" {self.train.split_rows:,} in each; run preprocess again"
            )

    def _report(self, progress: tqdm) -> None:
        values = self.trainer.measured()
        self._require_finite(values["loss"])
        progress.set_postfix({name: f"{value:.4f}" for name, value in values.items()})

    def _require_finite(self, loss: float) -> None:
        self.trainer.require_finite(loss, self.length.steps_per_epoch)

    def _validate(self, logs: dict[str, float]) -> dict[str, float]:
        """Validates, writes the round down and returns its logs under Keras's names."""
        measured = {} if self.validation is None else self.trainer.evaluate(self.validation)
        self._require_finite(measured.get("loss", 0.0))
        step = self.trainer.step
        self.history.add(
            Round(
                step=step,
                epoch=math.ceil(step / self.length.steps_per_epoch),
                minibatch_loss=logs.get("loss"),
                minibatch_accuracy=logs.get("accuracy"),
                rows=self._rows,
                validation_loss=measured.get("loss"),
                validation_accuracy=measured.get("accuracy"),
                validation_mean_class_accuracy=measured.get("mean_class_accuracy"),
                learning_rate=self.trainer.learning_rate if step else None,
                restart=self.restart,
            )
        )
        return {**logs, **{f"val_{name}": value for name, value in measured.items()}}


class _Batches:
    """The batches of one epoch after the other, without an end."""

    def __init__(self, feed: Feed, step: int) -> None:
        """Begins after so many batches."""
        self._feed = feed
        self._number, self._done = divmod(step, feed.steps)
        self._epoch: Epoch | None = None

    def close(self) -> None:
        """At the end: where that is the end of an epoch too, makes sure that it was whole."""
        if self._epoch and self._done == self._feed.steps:
            self._epoch.finish()

    def run(self, trainer: Trainer, wanted: int) -> int:
        """Trains on up to so many batches, fewer at the end of an epoch, and says how many."""
        if self._epoch and self._done == self._feed.steps:
            self._epoch.finish()
            self._number, self._done, self._epoch = self._number + 1, 0, None
        if self._epoch is None:
            self._epoch = self._feed.open(self._number, skip=self._done)
        count = min(wanted, self._feed.steps - self._done)
        with self._epoch.errors():
            trainer.train_steps(self._epoch.iterator, tf.constant(count))
        self._done += count
        trainer.step += count
        return count
