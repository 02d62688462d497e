"""One step of training after the other, and one validation: on as many devices as there are.

`Model.fit` cannot run on several workers with Keras 3, so the step is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fer_pipeline.errors import RunError
from fer_pipeline.learning.data.feed import Feed
from fer_pipeline.learning.training import optimization, workers
from fer_pipeline.learning.training.averaging import MovingAverage
from fer_pipeline.learning.training.distillation import Teachers
from fer_pipeline.learning.training.measures import Measured, Measures, mean_class_accuracy
from fer_pipeline.learning.training.objective import Objective

Tensor = Any


def make_repeatable(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow, and has TensorFlow do the same steps to the last bit."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


class Trainer:
    """Trains a network, step by step.

    Attributes:
        network: From normalised pixels to logits.
        model: What the callbacks see.
        optimizer: Applies the gradients.
        average: Of the weights.
        step: How many steps were made.
        confusion: What the last validation took each class for; None before.
    """

    def __init__(
        self,
        network: keras.Model,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        objective: Objective,
        average: float = 0.0,
        teachers: Teachers | None = None,
    ) -> None:
        """Takes what is trained.

        Args:
            network: From normalised pixels to logits.
            model: A model around the network, which the callbacks see; it gets compiled.
            optimizer: Not yet built.
            objective: What is minimised.
            average: The decay of the moving average of the weights; 0 for none.
            teachers: Who speak of each image beside its label.
        """
        self.network, self.model, self.optimizer = network, model, optimizer
        self.step = 0
        self.confusion: npt.NDArray[np.int64] | None = None
        self._objective, self._cross_entropy = objective, Objective(objective.classes)
        self._teachers = teachers
        self._strategy = tf.distribute.get_strategy()
        together = not workers.are_alone()
        if together:
            workers.synchronize(network)
        with self._strategy.scope():
            optimization.build(optimizer, network, summed=together)
            self.average = MovingAverage(network.weights, average)
            self._measures = Measures(objective.classes)
            # Of the last step that was made. The first step without a finite loss, 0 for none.
            self._rate = keras.Variable(0.0, trainable=False)
            self._last_loss = keras.Variable(math.nan, trainable=False)
            self._broken_at = keras.Variable(0, dtype="int64", trainable=False)
            # Callbacks look for the optimizer and for what is measured at the model.
            model.compile(optimizer=optimizer, metrics=["accuracy"])
        self._train_steps = tf.function(self._repeated(self._train_on))
        self._test_steps = tf.function(self._repeated(self._test_on))

    def train_steps(self, batches: Iterator[tuple[Tensor, Tensor]], count: Tensor) -> None:
        """Trains on so many batches; every worker has to, at the same time.

        Args:
            batches: Images and labels, a `tf.data` iterator.
            count: How many, an integer scalar.
        """
        with workers.waiting():
            self._train_steps(batches, count)

    def _repeated(self, step: Callable[..., None]) -> Callable[..., None]:
        """A number of steps at once: for a small network Python's part of a step counts."""

        def steps(batches: Tensor, count: Tensor) -> None:
            for _ in tf.range(count):
                self._strategy.run(step, next(batches))

        return steps

    def _train_on(self, images: Tensor, labels: Tensor) -> None:
        answers = self._teachers and self._teachers(images, self.optimizer.iterations.value)
        with tf.GradientTape() as tape:
            logits = self.network(images, training=True)
            losses = self._objective(labels, logits, answers)
            # A network of a user's own may regularise its weights.
            penalties = [tf.cast(penalty, tf.float32) for penalty in self.network.losses]
            rows = tf.cast(tf.shape(images)[0], tf.float32)
            loss = workers.weighed(tf.add_n([tf.reduce_sum(losses) / rows, *penalties]), rows)
        variables = self.network.trainable_variables
        gradients = tape.gradient(loss, variables)
        loss, *gradients = workers.mean([loss, *gradients], rows)
        self._rate.assign(self.optimizer.learning_rate)
        self.optimizer.apply(gradients, variables)
        self.average.update(self.optimizer.iterations)
        self._measures.update(losses, labels, logits)
        self._watch(loss)

    def _watch(self, loss: Tensor) -> None:
        sound = self._broken_at.value == 0
        finite = tf.math.is_finite(loss)
        self._last_loss.assign(tf.where(sound & finite, loss, self._last_loss.value))
        made = tf.cast(self.optimizer.iterations, tf.int64)
        self._broken_at.assign(tf.where(sound & ~finite, made, self._broken_at.value))

    def _test_on(self, images: Tensor, labels: Tensor) -> None:
        logits = self.network(images, training=False)
        losses = self._cross_entropy(tf.maximum(labels, 0), logits)
        self._measures.update(losses, labels, logits)

    def state(self) -> dict[str, list[npt.NDArray[Any]]]:
        """All that changes from step to step, by group, as copies; every worker has to ask."""
        found = {
            name: [np.array(variable) for variable in members]
            for name, members in self._variables().items()
        }
        # All else is the same in every worker.
        return {**found, "measures": workers.totals(found["measures"])}

    def restore(
        self, arrays: Mapping[str, list[npt.NDArray[Any]]], step: int, *, chief: bool = True
    ) -> None:
        """Goes back, or on, to a state.

        Args:
            arrays: What `state` gave.
            step: After how many steps.
            chief: Whether this is the worker that goes on with what was measured by all.

        Raises:
            RunError: It is that of another network or optimizer.
        """
        for name, members in self._variables().items():
            found = arrays.get(name, [])
            if [array.shape for array in found] != [tuple(v.shape) for v in members]:
                raise RunError(
                    f"the checkpoint's {name} is not that of this network and configuration;"
                    " --overwrite begins anew"
                )
            for variable, array in zip(members, found, strict=True):
                variable.assign(array)
        if not chief:
            self._measures.reset()
        self.step = step

    def _variables(self) -> dict[str, list[keras.Variable]]:
        return {
            # Beside the weights these are the states of the network's random generators.
            "network": self.network.variables,
            "optimizer": self.optimizer.variables,
            "average": self.average.shadows,
            "watched": [self._rate, self._last_loss, self._broken_at],
            "measures": self._measures.variables,
        }

    def evaluate(self, feed: Feed) -> dict[str, float]:
        """Loss, accuracy and mean accuracy of the classes on a split."""
        epoch = feed.open(0)
        try:
            with epoch.errors():
                self._test_steps(epoch.iterator, tf.constant(feed.steps))
            epoch.finish()
        except BaseException:
            # What was measured till then is no part of what comes next.
            self._measures.reset()
            raise
        found = self.round()
        self.confusion = found.confusion
        return {**found.results, "mean_class_accuracy": mean_class_accuracy(self.confusion)}

    def round(self) -> Measured:
        """What was measured in the round, which ends here; every worker has to ask."""
        found = self._measures.measured()
        self._measures.reset()
        return found

    def require_finite(self, loss: float, steps_per_epoch: int) -> None:
        """Stops a run whose loss is no number, or one of whose weights is none.

        The loss alone does not tell: oneDNN's activations can make a number of what is none.

        Raises:
            RunError: One of them is none; tells what led to it.
        """
        weights = self.network.weights
        broken = sum(not np.isfinite(np.asarray(weight)).all() for weight in weights)
        arrays = f"{broken} of {len(weights)} weight arrays are not finite"
        if not math.isfinite(loss):
            step = int(self._broken_at.numpy()) or self.step
            epoch, batch = divmod(step - 1, steps_per_epoch)
            what = (
                f"the loss is {loss} after {step} steps (batch {batch + 1} of epoch {epoch + 1});"
                f" the last finite one was {float(self._last_loss.numpy()):.4g}; {arrays}"
            )
        elif broken:
            what = f"{arrays} after {self.step} steps, though the loss still is ({loss:.4g})"
        else:
            return
        raise RunError(
            f"{what}; a lower training.optimizer.learning_rate ({self.learning_rate:g} in the last"
            " step), or training.optimizer.global_clipnorm, may help"
        )

    @property
    def learning_rate(self) -> float:
        """Of the last step that was made, 0 before the first."""
        return float(self._rate.numpy())

    def measured(self) -> dict[str, float]:
        """Loss and accuracy of the round so far; every worker has to ask."""
        return self._measures.measured().results
