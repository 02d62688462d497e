"""Layers for networks that are equivariant to mirroring an image left to right.

The channels of their maps come in two halves of equal size: one half holds for an image what the
other half holds, mirrored, for the mirrored image. They are the group convolutions of Cohen and
Welling (2016, arXiv:1602.07576) for the group of one reflection: as much to compute as plain
convolutions, with half of the weights to learn.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from fer_pipeline.learning.types import Tensor


@keras.saving.register_keras_serializable("fer_pipeline")
class MirroredConv2D(layers.Conv2D):
    """A 3x3 convolution that learns half of its filters; the other half are their mirror images.

    Its input is maps of two halves, or images, which have none. Its padding is `same`, and it has
    no bias.
    """

    def __init__(self, filters: int, lifting: bool = False, **options: Any) -> None:
        """Create the layer.

        Args:
            filters: Number of filters of both halves together, an even number.
            lifting: Whether the input is images.
            **options: Arguments of every Keras layer, such as `name`.

        Raises:
            ValueError: The number of filters is odd.
        """
        if isinstance(filters, int) and filters % 2:
            raise ValueError(f"filters come in two halves: expected an even number, got {filters}")
        super().__init__(
            filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", **options
        )
        self.lifting = lifting

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the learned half, float32 of shape (3, 3, channels, filters / 2)."""
        channels = input_shape[-1]
        self.input_spec = layers.InputSpec(ndim=4, axes={-1: channels})
        self.learned_half = self.add_weight(
            shape=(3, 3, channels, self.filters // 2),
            initializer=self.kernel_initializer,
            name="kernel",
        )

    @property
    def kernel(self) -> Tensor:
        """Kernel of the convolution, of shape (3, 3, channels, filters)."""
        mirrored_half = ops.flip(self.learned_half, axis=1)
        if not self.lifting:
            # A mirrored filter swaps the roles of the two halves of its input.
            first, second = ops.split(mirrored_half, 2, axis=2)
            mirrored_half = ops.concatenate([second, first], axis=2)
        return ops.concatenate([self.learned_half, mirrored_half], axis=3)

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Save the learned half."""
        store["0"] = self.learned_half

    def load_own_variables(self, store: dict[str, Any]) -> None:
        """Load the learned half."""
        self.learned_half.assign(store["0"])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which Keras recreates the layer."""
        layer_config = layers.Layer.get_config(self)
        return {**layer_config, "filters": self.filters, "lifting": self.lifting}


@keras.saving.register_keras_serializable("fer_pipeline")
class MirroredBatchNormalization(layers.BatchNormalization):
    """Batch normalisation that treats a channel of one half and its mirror channel alike."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Create the variables, each of shape (channels / 2,)."""
        *batch_and_sides, channels = input_shape
        super().build((*batch_and_sides, channels // 2))
        self.input_spec = layers.InputSpec(ndim=4, axes={-1: channels})

    def call(self, maps: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        """Return maps of shape (n, height, width, channels), normalised."""
        if training and self.trainable:
            # In memory the halves of a pixel are adjacent, like two pixels of half as many
            # channels.
            _, height, width, channels = maps.shape
            adjacent = ops.reshape(maps, (-1, height, 2 * width, channels // 2))
            normalized = super().call(adjacent, training=True)
            return ops.reshape(normalized, (-1, height, width, channels))
        # One factor and one offset per channel: a converter can fold them into the convolution.
        factor = self.gamma * ops.rsqrt(self.moving_variance + self.epsilon)
        offset = self.beta - self.moving_mean * factor
        factor, offset = (ops.concatenate([half, half]) for half in (factor, offset))
        return ops.cast(ops.cast(maps, "float32") * factor + offset, self.compute_dtype)
