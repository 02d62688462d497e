"""Network of reference system A, the Spark and TensorFlow system of 2017, for 28x28 images."""

from __future__ import annotations

import keras
from keras import initializers, layers


def build(size: int, classes: int, hidden: int = 64) -> keras.Model:
    """Build the network: two convolutions with max-pooling, and two dense layers.

    Both convolutions have 16 filters of 5x5 pixels. The initial weights come from a truncated
    normal distribution with a standard deviation of 0.1. The initial biases are 0 in the first
    convolution and 1 in all other layers, as in the published code listing.

    Args:
        size: Height and width of the images, in pixels; the original uses 28.
        classes: Number of classes.
        hidden: Number of units of the first dense layer. The published code listing has 64 (57,527
            parameters for 28x28 pixels and seven classes), the published text 3136 (2,490,551
            parameters).

    Returns:
        A model that maps normalised pixels, float32 of shape (n, size, size, 1), to logits of
        shape (n, classes).
    """

    def make_initializer() -> initializers.Initializer:
        """Return a new initializer for the weights of one layer.

        Each layer needs its own, because an initializer returns equal values at each call.
        """
        return initializers.TruncatedNormal(stddev=0.1)

    def make_convolution(name: str, bias: float) -> layers.Layer:
        """Create a convolution with 16 filters of 5x5 pixels and ReLU.

        Args:
            name: Name of the layer.
            bias: Initial value of the biases.
        """
        return layers.Conv2D(
            16,
            5,
            padding="same",
            activation="relu",
            kernel_initializer=make_initializer(),
            bias_initializer=initializers.Constant(bias),
            name=name,
        )

    def make_dense_layer(name: str, units: int, activation: str | None) -> layers.Layer:
        """Create a dense layer with initial biases of 1."""
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
            make_convolution("convolution_1", 0.0),
            layers.MaxPooling2D(2, padding="same", name="pool_1"),
            make_convolution("convolution_2", 1.0),
            layers.MaxPooling2D(2, padding="same", name="pool_2"),
            layers.Flatten(name="flatten"),
            make_dense_layer("hidden", hidden, "relu"),
            make_dense_layer("logits", classes, None),
        ],
        name="system_a",
    )
