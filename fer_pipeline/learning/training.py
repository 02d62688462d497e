"""The training loop: one step after the other, on as many devices as the strategy has.

`Model.fit` cannot run on several workers with Keras 3, so the loop is ours. It drives Keras's own
callbacks and metrics: what lies between two validations is a round, and a callback's epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

from fer_pipeline.errors import RunError
from fer_pipeline.learning.feed import Feed
from fer_pipeline.learning.history import History, Round

Tensor = Any

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
    """

    steps: int
    steps_per_epoch: int
    validate_every: int


def make_repeatable(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow, and has TensorFlow do the same steps to the last bit."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


class Trainer:
    """Trains a network, step by step.

    Attributes:
        step: How many steps were made.
        optimizer: Applies the gradients.
    """

    def __init__(self, network: keras.Model, model: keras.Model, learning_rate: float) -> None:
        """Takes what is trained.

        Args:
            network: From normalised pixels to logits.
            model: A model around the network, which the callbacks see; it gets compiled.
            learning_rate: Of plain gradient descent.
        """
        self.network, self.model = network, model
        self.optimizer = keras.optimizers.SGD(learning_rate)
        self.step = 0
        self._strategy = tf.distribute.get_strategy()
        self._loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
        with self._strategy.scope():
            self._metrics = {
                "loss": keras.metrics.Mean(),
                "accuracy": keras.metrics.SparseCategoricalAccuracy(),
            }
            self.optimizer.build(network.trainable_variables)
            # Callbacks look for the optimizer and for what is measured at the model.
            model.compile(optimizer=self.optimizer, metrics=["accuracy"])
        self.train_steps = tf.function(self._repeated(self._train_on))
        self._test_steps = tf.function(self._repeated(self._test_on))

    def _repeated(self, step: Callable[..., None]) -> Callable[..., None]:
        """A number of steps at once: for a small network Python's part of a step counts."""

        def steps(batches: Tensor, count: Tensor) -> None:
            for _ in tf.range(count):
                self._strategy.run(step, next(batches))

        return steps

    def _train_on(self, images: Tensor, labels: Tensor) -> None:
        with tf.GradientTape() as tape:
            logits = self.network(images, training=True)
            losses = self._loss(labels, logits)
            loss = tf.reduce_mean(losses)
        variables = self.network.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self._measure(losses, labels, logits)

    def _test_on(self, images: Tensor, labels: Tensor) -> None:
        logits = self.network(images, training=False)
        self._measure(self._loss(labels, logits), labels, logits)

    def _measure(self, losses: Tensor, labels: Tensor, logits: Tensor) -> None:
        self._metrics["loss"].update_state(losses)
        self._metrics["accuracy"].update_state(labels, logits)

    def _results(self) -> dict[str, float]:
        results = {name: float(metric.result()) for name, metric in self._metrics.items()}
        for metric in self._metrics.values():
            metric.reset_state()
        return results

    def evaluate(self, feed: Feed) -> dict[str, float]:
        """Loss and accuracy on a split."""
        epoch = feed.open(0)
        with epoch.errors():
            self._test_steps(epoch.iterator, tf.constant(feed.steps))
        epoch.finish()
        return self._results()

    def fit(
        self,
        train: Feed,
        validation: Feed | None,
        length: Length,
        history: History,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        """Trains to the end.

        Args:
            train: The training split.
            validation: The validation split, where there is one.
            length: How long.
            history: Where each round is written.
            callbacks: Keras's callbacks; a round is their epoch.

        Raises:
            RunError: The loss is no number any more.
            DatasetError: An epoch did not deliver the rows of the manifest.
        """
        rounds = math.ceil(length.steps / length.validate_every)
        driven = keras.callbacks.CallbackList(
            list(callbacks), model=self.model, epochs=rounds, steps=length.validate_every
        )
        self.model.stop_training = False
        driven.on_train_begin()
        logs = self._validate(validation, length, history, {})
        batches = _Batches(train)
        with tqdm(total=length.steps, unit=" steps", desc="train", disable=None) as progress:
            for index in range(rounds):
                driven.on_epoch_begin(index)
                logs = self._train_round(batches, length, driven, progress)
                logs = self._validate(validation, length, history, logs)
                driven.on_epoch_end(index, logs)
                if self.model.stop_training:
                    break
        batches.close()
        driven.on_train_end(logs)

    def _train_round(
        self,
        batches: _Batches,
        length: Length,
        driven: keras.callbacks.CallbackList,
        progress: tqdm,
    ) -> dict[str, float]:
        end = min(self.step + length.validate_every, length.steps)
        while self.step < end and not self.model.stop_training:
            driven.on_train_batch_begin(self.step)
            count = batches.run(self.train_steps, min(_STEPS_AT_ONCE, end - self.step))
            self.step += count
            driven.on_train_batch_end(self.step - 1)
            progress.update(count)
            # Reading a metric waits for the step, so the bar is told now and then.
            if self.step % _STEPS_BETWEEN_REPORTS < count:
                self._report(progress)
        results = self._results()
        self._require_finite(results["loss"])
        return results

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} after {self.step} steps; a lower training.learning_rate than"
                f" {float(self.optimizer.learning_rate):g} may help"
            )

    def _report(self, progress: tqdm) -> None:
        values = {name: float(metric.result()) for name, metric in self._metrics.items()}
        self._require_finite(values["loss"])
        progress.set_postfix({name: f"{value:.4f}" for name, value in values.items()})

    def _validate(
        self,
        validation: Feed | None,
        length: Length,
        history: History,
        logs: dict[str, float],
    ) -> dict[str, float]:
        """Validates, writes the round down and returns its logs under Keras's names."""
        measured = {} if validation is None else self.evaluate(validation)
        self._require_finite(measured.get("loss", 0.0))
        history.add(
            Round(
                step=self.step,
                epoch=math.ceil(self.step / length.steps_per_epoch),
                minibatch_loss=logs.get("loss"),
                minibatch_accuracy=logs.get("accuracy"),
                validation_loss=measured.get("loss"),
                validation_accuracy=measured.get("accuracy"),
            )
        )
        return {**logs, **{f"val_{name}": value for name, value in measured.items()}}


class _Batches:
    """The batches of one epoch after the other, without an end."""

    def __init__(self, feed: Feed) -> None:
        self._feed, self._number = feed, 0
        self._epoch, self._left = feed.open(0), feed.steps

    def close(self) -> None:
        """At the end: where that is the end of an epoch too, makes sure that it was whole."""
        if not self._left:
            self._epoch.finish()

    def run(self, steps: Callable[[Any, Tensor], None], wanted: int) -> int:
        """Runs up to so many steps, fewer at the end of an epoch, and says how many."""
        if not self._left:
            self._epoch.finish()
            self._number += 1
            self._epoch, self._left = self._feed.open(self._number), self._feed.steps
        count = min(wanted, self._left)
        with self._epoch.errors():
            steps(self._epoch.iterator, tf.constant(count))
        self._left -= count
        return count
