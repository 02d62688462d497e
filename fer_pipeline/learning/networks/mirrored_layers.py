"""Layers for networks that see a face and its mirror image alike.

Their maps come in two halves, with one channel for each channel of the other: what the one holds of
an image, the other holds, mirrored, of the mirrored image. They are the group convolutions of Cohen
& Welling (2016, arXiv:1602.07576), for the group of one reflection: as much to compute as plain
ones, and half of the weights to learn.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from fer_pipeline.learning.types import Tensor


@keras.saving.register_keras_serializable("fer_pipeline")
class MirroredConv2D(layers.Conv2D):
    """A 3x3 convolution of which one half of the filters is learnt; the other is its mirror image.

    It takes maps of two halves, or images, which have none. Its padding is `same`; it has no bias.
    """

    def __init__(self, filters: int, lifting: bool = False, **options: Any) -> None:
        """Takes what is asked for.

        Args:
            filters: Of both halves together.
            lifting: Whether it takes images.
            **options: Of any layer, such as `name`.

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
        """Makes the learnt half, float32 of shape (3, 3, channels, filters / 2)."""
        channels = input_shape[-1]
        self.input_spec = layers.InputSpec(ndim=4, axes={-1: channels})
        self.learnt = self.add_weight(
            shape=(3, 3, channels, self.filters // 2),
            initializer=self.kernel_initializer,
            name="kernel",
        )

    @property
    def kernel(self) -> Tensor:
        """What the maps are convolved with, of shape (3, 3, channels, filters)."""
        mirrored = ops.flip(self.learnt, axis=1)
        if not self.lifting:
            # What a filter looks for in one half, its mirror image looks for in the other.
            one, other = ops.split(mirrored, 2, axis=2)
            mirrored = ops.concatenate([other, one], axis=2)
        return ops.concatenate([self.learnt, mirrored], axis=3)

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Saves the learnt half."""
        store["0"] = self.learnt

    def load_own_variables(self, store: dict[str, Any]) -> None:
        """Loads the learnt half."""
        self.learnt.assign(store["0"])

    def get_config(self) -> dict[str, Any]:
        """What Keras makes it again with."""
        of_any_layer = layers.Layer.get_config(self)
        return {**of_any_layer, "filters": self.filters, "lifting": self.lifting}


@keras.saving.register_keras_serializable("fer_pipeline")
class MirroredBatchNormalization(layers.BatchNormalization):
    """Batch normalisation that treats the same channel of both halves alike."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Makes the variables, each of shape (channels / 2,)."""
        *batch_and_sides, channels = input_shape
        super().build((*batch_and_sides, channels // 2))
        self.input_spec = layers.InputSpec(ndim=4, axes={-1: channels})

    def call(self, maps: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        """Maps of shape (n, height, width, channels), normalised."""
        if training and self.trainable:
            # In memory the halves of a pixel lie one after the other, as two pixels of half as
            # many channels would.
            _, height, width, channels = maps.shape
            beside = ops.reshape(maps, (-1, height, 2 * width, channels // 2))
            normalised = super().call(beside, training=True)
            return ops.reshape(normalised, (-1, height, width, channels))
        # One factor and one offset a channel: a converter can make them part of the convolution.
        factor = self.gamma * ops.rsqrt(self.moving_variance + self.epsilon)
        offset = self.beta - self.moving_mean * factor
        factor, offset = (ops.concatenate([half, half]) for half in (factor, offset))
        return ops.cast(ops.cast(maps, "float32") * factor + offset, self.compute_dtype)
