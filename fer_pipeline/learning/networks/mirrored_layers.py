"""Layers for networks that are equivariant to mirroring an image left to right.

The channels of the features form two halves of equal size. If the image is mirrored, the features
are mirrored too, and the two halves are swapped. The layers are the group convolutions of Cohen
and Welling (2016, arXiv:1602.07576) for the group of one reflection. They need as many
multiply-adds as plain convolutions, but have half as many weights.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from fer_pipeline.learning.types import Tensor


@keras.saving.register_keras_serializable("fer_pipeline")
class MirroredConv2D(layers.Conv2D):
    """A 3x3 convolution that learns half of its filters; the other half are their mirror images.

    The input is either images or features whose channels form two halves, as the docstring of the
    module explains. The padding is `same`, and there is no bias.

    Attributes:
        lifting: Whether the input is images (a "lifting" convolution in the group-theory terms of
            the paper).
        learned_half: Learned half of the kernel, of shape (3, 3, channels, filters / 2).
    """

    def __init__(self, filters: int, lifting: bool = False, **options: Any) -> None:
        """Create the layer, without weights.

        Args:
            filters: Number of filters, learned and mirrored ones together; an even number.
            lifting: Whether the input is images. If not, it is features whose channels form two
                halves of equal size, which mirroring the image swaps.
            **options: Arguments of `keras.layers.Layer`, such as `name`.

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
        """Create the weights: the learned half of the kernel.

        Its shape is (3, 3, channels, filters / 2). The other half is not stored, because it is the
        mirror image of the learned half.
        """
        channels = input_shape[-1]
        self.input_spec = layers.InputSpec(ndim=4, axes={-1: channels})
        self.learned_half = self.add_weight(
            shape=(3, 3, channels, self.filters // 2),
            initializer=self.kernel_initializer,
            name="kernel",
        )

    @property
    def kernel(self) -> Tensor:
        """Whole kernel of the convolution: the learned half of the filters and their mirror images.

        The shape is (3, 3, channels, filters). If `lifting` is False, the two halves of the
        input channels are also swapped in the mirror images.
        """
        mirrored_half = ops.flip(self.learned_half, axis=1)
        if not self.lifting:
            # Mirroring also swaps the two halves of the input channels.
            first_half, second_half = ops.split(mirrored_half, 2, axis=2)
            mirrored_half = ops.concatenate([second_half, first_half], axis=2)
        return ops.concatenate([self.learned_half, mirrored_half], axis=3)

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Write the learned half of the kernel to the store of a Keras model file.

        The other half is computed from it.
        """
        store["0"] = self.learned_half

    def load_own_variables(self, store: dict[str, Any]) -> None:
        """Read the learned half of the kernel from the store of a Keras model file.

        The other half is computed from it.
        """
        self.learned_half.assign(store["0"])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments with which Keras recreates the layer."""
        layer_config = layers.Layer.get_config(self)
        return {**layer_config, "filters": self.filters, "lifting": self.lifting}


@keras.saving.register_keras_serializable("fer_pipeline")
class MirroredBatchNormalization(layers.BatchNormalization):
    """Batch normalisation in which both halves of the channels share their statistics and weights.

    A channel and the corresponding channel of the other half have the same mean, variance, factor
    and offset, so that the layer stays equivariant to mirroring.
    """

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Create the weights and moving statistics, each of shape (channels / 2,).

        Both halves of the channels share them.
        """
        *other_dimensions, channels = input_shape
        super().build((*other_dimensions, channels // 2))
        self.input_spec = layers.InputSpec(ndim=4, axes={-1: channels})

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        """Normalise features; both halves of the channels use the same statistics and weights.

        Args:
            inputs: The features, of shape (n, height, width, channels).
            training: Whether to use the statistics of the batch and to update the moving
                statistics. If the layer is frozen (`trainable` is False), it always uses the
                moving statistics and does not change them.
            mask: Ignored; Keras expects this parameter.

        Returns:
            The normalised features, of the same shape.
        """
        if training and self.trainable:
            # In memory the two halves of a pixel are adjacent, like two pixels with half as many
            # channels.
            _, height, width, channels = inputs.shape
            split_pixels = ops.reshape(inputs, (-1, height, 2 * width, channels // 2))
            normalized = super().call(split_pixels, training=True)
            return ops.reshape(normalized, (-1, height, width, channels))
        # With one factor and one offset per channel, a converter can fold this layer into the
        # convolution before it.
        factor = self.gamma * ops.rsqrt(self.moving_variance + self.epsilon)
        offset = self.beta - self.moving_mean * factor
        factor, offset = (ops.concatenate([half, half]) for half in (factor, offset))
        return ops.cast(ops.cast(inputs, "float32") * factor + offset, self.compute_dtype)
