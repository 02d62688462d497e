"""The moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf


class MovingAverage:
    """An exponential moving average of variables (Polyak and Juditsky 1992).

    Keras's optimizers average trainable variables only, and let the first, random ones count for
    long. Here BatchNormalization's statistics are averaged too, and the decay after n steps is
    min(decay, (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage.

    Attributes:
        shadows: The averages, one for each variable.
    """

    def __init__(self, variables: Sequence[keras.Variable], decay: float) -> None:
        """Begins at the variables' values.

        Args:
            variables: What is averaged.
            decay: The part of the average that a step leaves, 0..1; 0 averages nothing.
        """
        self._decay = decay
        floats = [v for v in variables if keras.backend.is_float_dtype(v.dtype)]
        self._variables = floats if decay else []
        # From the value: from a variable Keras would make another name for the same memory.
        self.shadows = [
            keras.Variable(np.array(variable), trainable=False, name=f"{variable.name}_average")
            for variable in self._variables
        ]

    def update(self, step: tf.Tensor) -> None:
        """Adds the variables as they are after so many steps."""
        if not self._decay:
            return
        count = tf.cast(step, tf.float32)
        rest = 1 - tf.minimum(self._decay, (1 + count) / (10 + count))
        for shadow, variable in zip(self.shadows, self._variables, strict=True):
            shadow.assign_add(rest * (variable.value - shadow.value))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Around what uses the averages in place of the variables."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for shadow, variable in zip(self.shadows, self._variables, strict=True):
            average = tf.identity(shadow.value)
            shadow.assign(variable.value)
            variable.assign(average)
