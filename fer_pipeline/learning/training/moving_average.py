"""Exponential moving average of a network's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf


class MovingAverage:
    """An exponential moving average of variables (Polyak and Juditsky 1992).

    Keras's optimizers also have a moving average. But it contains only trainable variables, and the
    random initial values keep a large weight in it for many steps. This class also averages the
    statistics of BatchNormalization. After n steps, the previous average has the weight
    min(decay, (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage.

    Attributes:
        averages: Average of each floating-point variable; empty if averaging is off.
    """

    def __init__(self, variables: Sequence[keras.Variable], decay: float) -> None:
        """Create the averages with the current values of the variables.

        Args:
            variables: Variables to average. Only floating-point variables are averaged.
            decay: Largest weight of the previous average in a step, in [0, 1]; 0 turns averaging
                off.
        """
        self._decay = decay
        float_variables = [v for v in variables if keras.backend.is_float_dtype(v.dtype)]
        self._variables = float_variables if decay else []
        # Without the copy, the average would share the memory of the variable. np.array would copy
        # as well, but Keras 3.15 does not implement the argument with which NumPy asks for it.
        self.averages = [
            keras.Variable(
                np.asarray(variable).copy(), trainable=False, name=f"{variable.name}_average"
            )
            for variable in self._variables
        ]

    def update(self, step: tf.Tensor) -> None:
        """Update the averages with the current values of the variables, unless averaging is off.

        Args:
            step: Number of training steps so far. The decay is limited to
                (1 + step) / (10 + step), so that the averages soon forget the initial values.
        """
        if not self._decay:
            return
        step_count = tf.cast(step, tf.float32)
        new_weight = 1 - tf.minimum(self._decay, (1 + step_count) / (10 + step_count))
        for average, variable in zip(self.averages, self._variables, strict=True):
            average.assign_add(new_weight * (variable.value - average.value))

    @contextlib.contextmanager
    def use_averages(self) -> Iterator[None]:
        """Set the variables to their averages during the `with` block, then restore their values.

        Does nothing if averaging is off.
        """
        self._swap_values()
        try:
            yield
        finally:
            self._swap_values()

    def _swap_values(self) -> None:
        """Exchange the values of the variables and of their averages."""
        for average, variable in zip(self.averages, self._variables, strict=True):
            averaged = tf.identity(average.value)
            average.assign(variable.value)
            variable.assign(averaged)
