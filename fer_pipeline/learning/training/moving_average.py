"""Exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf


class MovingAverage:
    """An exponential moving average of variables (Polyak and Juditsky 1992).

    Keras's optimizers average only trainable variables, and the random initial values keep a large
    weight for long. Here BatchNormalization's statistics are averaged too, and the decay after n
    steps is min(decay, (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage.

    Attributes:
        averages: The average of each variable.
    """

    def __init__(self, variables: Sequence[keras.Variable], decay: float) -> None:
        """Start with the current values of the variables.

        Args:
            variables: Variables to average; those that are not floats are left out.
            decay: Share of the average that remains after a step, 0..1; 0 turns averaging off.
        """
        self._decay = decay
        floats = [v for v in variables if keras.backend.is_float_dtype(v.dtype)]
        self._variables = floats if decay else []
        # From a copy of the value: from a variable, Keras would share its memory.
        self.averages = [
            keras.Variable(np.array(variable), trainable=False, name=f"{variable.name}_average")
            for variable in self._variables
        ]

    def update(self, step: tf.Tensor) -> None:
        """Add the current values of the variables.

        Args:
            step: Number of steps after which the variables have these values.
        """
        if not self._decay:
            return
        count = tf.cast(step, tf.float32)
        new_share = 1 - tf.minimum(self._decay, (1 + count) / (10 + count))
        for average, variable in zip(self.averages, self._variables, strict=True):
            average.assign_add(new_share * (variable.value - average.value))

    @contextlib.contextmanager
    def apply(self) -> Iterator[None]:
        """Give the variables the averaged values within the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for average, variable in zip(self.averages, self._variables, strict=True):
            averaged = tf.identity(average.value)
            average.assign(variable.value)
            variable.assign(averaged)
