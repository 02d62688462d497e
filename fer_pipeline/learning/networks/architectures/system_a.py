"""Network of reference system A, the Spark and TensorFlow system of 2017, for 28x28 images."""

from __future__ import annotations

import keras
from keras import initializers, layers


def build(size: int, classes: int, hidden: int = 64) -> keras.Model:
    """Build the network: two convolutions 5x5x16 with max-pooling, a dense layer, the logits.

    The initial weights are samples of a truncated normal distribution with standard deviation 0.1;
    the biases of the first convolution are 0, all others 1, as in the system's listing.

    Args:
        size: Side of the images, in pixels; 28 in the original.
        classes: Number of emotions.
        hidden: Number of units of the dense layer: 64 in the system's listing (57,527 parameters
            for 28x28 pixels and seven classes), 3136 in its text (2,490,551).

    Returns:
        A model from normalised pixels, float32 of shape (n, size, size, 1), to logits of shape
        (n, classes).
    """

    def make_initializer() -> initializers.Initializer:
        # One for each layer: an initializer gives the same values each time it is used.
        return initializers.TruncatedNormal(stddev=0.1)

    def convolution(name: str, bias: float) -> layers.Layer:
        return layers.Conv2D(
            16,
            5,
            padding="same",
            activation="relu",
            kernel_initializer=make_initializer(),
            bias_initializer=initializers.Constant(bias),
            name=name,
        )

    def dense(name: str, units: int, activation: str | None) -> layers.Layer:
        return layers.Dense(
            units,
            activation=activation,
            kernel_initializer=make_initializer(),
            bias_initializer=initializers.Constant(1.0),
            name=name,
        )

    return keras.Sequential(
        [
            layers.Input((size, size, 1)),
            convolution("convolution_1", 0.0),
            layers.MaxPooling2D(2, padding="same", name="pool_1"),
            convolution("convolution_2", 1.0),
            layers.MaxPooling2D(2, padding="same", name="pool_2"),
            layers.Flatten(name="flatten"),
            dense("hidden", hidden, "relu"),
            dense("logits", classes, None),
        ],
        name="system_a",
    )
