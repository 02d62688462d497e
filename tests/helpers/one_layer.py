"""Networks of one layer, and the number of their multiplications counted by computation."""

from __future__ import annotations

import keras
import numpy as np


def build_one_layer_network(layer: keras.Layer, shape: tuple[int | None, ...]) -> keras.Model:
    """Return a network of one layer for inputs of a shape without the batch."""
    return keras.Sequential([keras.layers.Input(shape), layer])


def count_products(layer: keras.Layer, shape: tuple[int, ...]) -> int:
    """Return the number of products in all outputs of a layer without a bias.

    If all inputs and weights are 1, each output is the number of products that it sums. A kernel
    that reaches over a border of zeros multiplies there as well, and cannot be counted like that.
    """
    network = build_one_layer_network(layer, shape)
    for variable in network.weights:
        variable.assign(np.ones(variable.shape, np.float32))
    return int(np.asarray(network(np.ones((1, *shape), np.float32)), np.float64).sum())
