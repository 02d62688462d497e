"""Training and validation steps of a network, on one or several workers.

Keras 3's `Model.fit` does not support several workers with TensorFlow. For this reason this module
has its own training step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fer_pipeline.errors import RunError
from fer_pipeline.learning.input.batch_loader import BatchLoader
from fer_pipeline.learning.training import distributed, optimizers
from fer_pipeline.learning.training.checkpoint import StateArrays
from fer_pipeline.learning.training.distillation import TeacherEnsemble
from fer_pipeline.learning.training.losses import ClassificationLoss
from fer_pipeline.learning.training.moving_average import MovingAverage
from fer_pipeline.learning.training.running_metrics import (
    MetricTotals,
    RunningMetrics,
    mean_class_accuracy,
)
from fer_pipeline.learning.types import Tensor


def enable_determinism(seed: int) -> None:
    """Seed the random generators and make TensorFlow's operations bit-reproducible.

    The seeded generators are those of Python, NumPy and TensorFlow.
    """
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


class Trainer:
    """A trainer that runs the training and validation steps of a network.

    Attributes:
        network: Network that maps normalised pixels to logits.
        model: Serving model: the normalization of raw pixels, the network and a softmax. Keras
            callbacks get this model.
        optimizer: Optimizer that applies the gradients.
        average: Moving average of the weights.
        step: Number of completed training steps.
        confusion: Confusion matrix of the last validation, int64 of shape (classes, classes); None
            before the first validation.
    """

    def __init__(
        self,
        network: keras.Model,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        loss: ClassificationLoss,
        *,
        ema_decay: float = 0.0,
        teachers: TeacherEnsemble | None = None,
    ) -> None:
        """Create the optimizer's variables and compile the model.

        If there are several workers, the network's BatchNormalization layers are changed to use the
        statistics of the whole batch.

        Args:
            network: Network that maps normalised pixels to logits.
            model: Serving model: the normalization of raw pixels, the network and a softmax. Keras
                callbacks get this model.
            optimizer: Optimizer that has no variables yet.
            loss: Training loss.
            ema_decay: Decay of the moving average of the weights; 0 for no average.
            teachers: Teachers for distillation; None for no teachers.
        """
        self.network, self.model, self.optimizer = network, model, optimizer
        self.step = 0
        self.confusion: npt.NDArray[np.int64] | None = None
        self._loss, self._cross_entropy = loss, ClassificationLoss(loss.class_count)
        self._teachers = teachers
        self._strategy = tf.distribute.get_strategy()
        is_distributed = not distributed.is_single_worker()
        if is_distributed:
            distributed.enable_sync_batch_norm(network)
        with self._strategy.scope():
            optimizers.prepare_optimizer(
                optimizer, network, gradients_already_reduced=is_distributed
            )
            self.average = MovingAverage(network.weights, ema_decay)
            self._metrics = RunningMetrics(loss.class_count)
            # The learning rate of the last step, the last finite loss, and the first step with a
            # loss that was not finite (0 if all losses were finite).
            self._learning_rate = keras.Variable(0.0, trainable=False)
            self._last_finite_loss = keras.Variable(math.nan, trainable=False)
            self._first_bad_step = keras.Variable(0, dtype="int64", trainable=False)
            # Keras callbacks expect the optimizer and the metrics as attributes of the model.
            model.compile(optimizer=optimizer, metrics=["accuracy"])
        self._train_steps = tf.function(self._make_multi_step_function(self._run_train_step))
        self._validation_steps = tf.function(
            self._make_multi_step_function(self._run_validation_step)
        )

    def train_on_batches(
        self, batches: Iterator[tuple[Tensor, Tensor]], step_count: Tensor
    ) -> None:
        """Train on the next batches; all workers must call this method at the same time.

        The caller must add the number of batches to the attribute `step`.

        Args:
            batches: Iterator over a `tf.data.Dataset` of images and labels.
            step_count: Number of batches, an integer scalar.
        """
        with distributed.exit_if_stalled():
            self._train_steps(batches, step_count)

    def _make_multi_step_function(self, step: Callable[..., None]) -> Callable[..., None]:
        """Return a function that runs a step on several batches.

        The caller compiles it as a `tf.function`. One call for several batches takes less time than
        one call for each batch.

        Args:
            step: Function that processes one batch of images and labels.

        Returns:
            A function `(batch_iterator, step_count)`.
        """

        def run_steps(batch_iterator: Iterator[Any], step_count: Tensor) -> None:
            """Run the step on the next `step_count` batches of an iterator."""
            for _ in tf.range(step_count):
                self._strategy.run(step, next(batch_iterator))

        return run_steps

    def _run_train_step(self, images: Tensor, labels: Tensor) -> None:
        """Train on this worker's part of a batch, and update the moving average and the metrics.

        The optimizer applies the mean gradient over the parts of all workers.

        Args:
            images: Normalised images, float32 of shape (n, size, size, 1).
            labels: Class indices of shape (n,), or distributions of shape (n, classes).
        """
        teacher_probabilities = self._teachers and self._teachers(
            images, self.optimizer.iterations.value
        )
        with tf.GradientTape() as tape:
            logits = self.network(images, training=True)
            losses = self._loss(labels, logits, teacher_probabilities)
            # A custom network may have penalties that regularize its weights.
            penalties = [tf.cast(penalty, tf.float32) for penalty in self.network.losses]
            row_count = tf.cast(tf.shape(images)[0], tf.float32)
            mean_loss = tf.reduce_sum(losses) / row_count
            loss = distributed.scale_loss(tf.add_n([mean_loss, *penalties]), row_count)
        variables = self.network.trainable_variables
        gradients = tape.gradient(loss, variables)
        loss, *gradients = distributed.all_reduce_mean([loss, *gradients], row_count)
        self._learning_rate.assign(self.optimizer.learning_rate)
        self.optimizer.apply(gradients, variables)
        self.average.update(self.optimizer.iterations)
        self._metrics.update(losses, labels, logits)
        self._record_loss(loss)

    def _record_loss(self, loss: Tensor) -> None:
        """Store the last finite loss, and the first step with a loss that is not finite.

        After a step with a loss that is not finite, nothing more is stored.

        Args:
            loss: Loss of the current step, a float32 scalar.
        """
        are_earlier_finite = self._first_bad_step.value == 0
        is_finite = tf.math.is_finite(loss)
        self._last_finite_loss.assign(
            tf.where(are_earlier_finite & is_finite, loss, self._last_finite_loss.value)
        )
        step = tf.cast(self.optimizer.iterations, tf.int64)
        self._first_bad_step.assign(
            tf.where(are_earlier_finite & ~is_finite, step, self._first_bad_step.value)
        )

    def _run_validation_step(self, images: Tensor, labels: Tensor) -> None:
        """Add the losses and predictions of one validation batch to the metrics.

        The metrics ignore padding images. These have a negative label, and fill a batch that would
        be empty.
        """
        logits = self.network(images, training=False)
        losses = self._cross_entropy(tf.maximum(labels, 0), logits)
        self._metrics.update(losses, labels, logits)

    def get_state(self) -> dict[str, list[npt.NDArray[Any]]]:
        """Return copies of all variables that training changes, for a checkpoint.

        All workers must call this method at the same time.

        Returns:
            Arrays under these keys:

            * `network`: Weights of the network, and states of its random generators.
            * `optimizer`: State of the optimizer.
            * `average`: Moving averages of the weights; empty if averaging is off.
            * `monitor`: Learning rate, last finite loss, and first step with a loss that is not
              finite.
            * `metrics`: Training metrics, summed over all workers.
        """
        arrays = {
            group: [np.asarray(variable).copy() for variable in variables]
            for group, variables in self._group_state_variables().items()
        }
        # All other variables are equal in all workers.
        return {**arrays, "metrics": distributed.all_reduce_sum(arrays["metrics"])}

    def restore(self, state: StateArrays, step: int, *, is_chief: bool = True) -> None:
        """Set all variables to a state that `get_state` returned.

        Args:
            state: Arrays that `get_state` returned.
            step: Number of steps that were completed in that state.
            is_chief: Whether this worker is the chief (worker 0). The stored metrics are sums over
                all workers: the chief restores them, and all other workers set theirs to 0.

        Raises:
            RunError: The state belongs to a different network or optimizer.
        """
        for group, variables in self._group_state_variables().items():
            arrays = state.get(group, [])
            if [array.shape for array in arrays] != [tuple(v.shape) for v in variables]:
                raise RunError(
                    f"the checkpoint's {group} variables do not fit this network and configuration;"
                    " start again with --overwrite"
                )
            for variable, array in zip(variables, arrays, strict=True):
                variable.assign(array)
        if not is_chief:
            self._metrics.reset()
        self.step = step

    def _group_state_variables(self) -> dict[str, list[keras.Variable]]:
        """Return all variables that training changes, under the keys of `get_state`."""
        return {
            # The weights and the states of the network's random generators.
            "network": self.network.variables,
            "optimizer": self.optimizer.variables,
            "average": self.average.averages,
            "monitor": [self._learning_rate, self._last_finite_loss, self._first_bad_step],
            "metrics": self._metrics.variables,
        }

    def evaluate(self, loader: BatchLoader) -> dict[str, float]:
        """Return the loss, the accuracy and the mean class accuracy on a split.

        All workers must call this method at the same time. The confusion matrix of the split is
        stored in the attribute `confusion`. The running metrics are reset at the end.

        Args:
            loader: Loader of this worker's shard of the split.

        Returns:
            Metrics under the keys `loss`, `accuracy` and `mean_class_accuracy`.

        Raises:
            DatasetError: The dataset is damaged or cannot be read.
        """
        epoch = loader.open_epoch(0)
        try:
            with epoch.translate_reader_errors():
                self._validation_steps(epoch.batches, tf.constant(loader.steps_per_epoch))
            epoch.drain_and_verify()
        except BaseException:
            # The metrics of this incomplete validation must not be added to the next metrics.
            self._metrics.reset()
            raise
        totals = self.pop_metric_totals()
        self.confusion = totals.confusion
        return {**totals.means, "mean_class_accuracy": mean_class_accuracy(self.confusion)}

    def pop_metric_totals(self) -> MetricTotals:
        """Return the metrics of all workers since the last reset, and reset them.

        The metrics are the confusion matrix and the sum of the losses. All workers must call this
        method at the same time.
        """
        totals = self._metrics.compute_totals()
        self._metrics.reset()
        return totals

    def compute_current_metrics(self) -> dict[str, float]:
        """Return the mean training `loss` and the training `accuracy` since the last validation.

        All workers must call this method at the same time.
        """
        return self._metrics.compute_totals().means

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step; 0 before the first step."""
        return float(self._learning_rate.numpy())

    def require_finite(self, loss: float, steps_per_epoch: int) -> None:
        """Check that a loss and all weights of the network are finite.

        A check of the loss alone is not enough, because oneDNN's activations can turn NaN into a
        number.

        Args:
            loss: Loss to check.
            steps_per_epoch: Number of steps in one epoch, for the message.

        Raises:
            RunError: The loss or a weight is not finite. If the loss is not finite, the message
                contains the first step with such a loss.
        """
        weights = self.network.weights
        bad_count = sum(not np.isfinite(np.asarray(weight)).all() for weight in weights)
        bad_weights = f"{bad_count} of {len(weights)} weight arrays are not finite"
        if not math.isfinite(loss):
            step = int(self._first_bad_step.numpy()) or self.step
            epoch, batch = divmod(step - 1, steps_per_epoch)
            problem = (
                f"the loss is {loss} after {step} steps (batch {batch + 1} of epoch {epoch + 1});"
                f" the last finite loss was {float(self._last_finite_loss.numpy()):.4g};"
                f" {bad_weights}"
            )
        elif bad_count:
            problem = (
                f"{bad_weights} after {self.step} steps, although the loss is finite ({loss:.4g})"
            )
        else:
            return
        raise RunError(
            f"{problem}; reduce training.optimizer.learning_rate ({self.learning_rate:g} in the"
            " last step) or set training.optimizer.global_clipnorm"
        )
