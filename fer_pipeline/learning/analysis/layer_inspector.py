"""What goes on inside a trained network: what its layers give, and where they look."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers

from fer_pipeline.errors import RunError

_CONVOLUTIONS = (
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
    layers.Conv2DTranspose,
)
_POOLS = (layers.MaxPooling2D, layers.AveragePooling2D)
# More sections than these fill more than a page.
_BY_DEFAULT = 8


class LayerInspector:
    """A look into a model that `bundle.servable` made.

    Attributes:
        names: The layers that can be drawn, in the order in which an image passes them: those that
            give maps, of shape (n, height, width, maps), or units, of shape (n, units).
        evidence: The layer on which `class_activation` stands, None where no layer gives maps.
    """

    def __init__(self, model: keras.Model) -> None:
        """Takes the model."""
        self._normalization = model.get_layer("normalization")
        # One of its layers is itself a model: the network from normalised pixels to logits.
        (self._network,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
        self._input, _, found = _traced(self._network)
        self._tensors = {
            layer.name: tensor for layer, tensor in found if len(tensor.shape) in (2, 4)
        }
        self._maps = [(layer, tensor.shape) for layer, tensor in found if _is_maps(tensor)]
        self.names = tuple(self._tensors)
        self.evidence = self._evidence()

    def chosen(self, asked: Sequence[str] = ()) -> list[str]:
        """The layers to draw.

        Args:
            asked: Names of layers; by default the convolutions and the poolings, or eight of them
                that are spread evenly over the network, the first and the last included.

        Raises:
            RunError: There is no such layer.
        """
        for name in asked:
            if name not in self._tensors:
                near = difflib.get_close_matches(name, self.names, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise RunError(
                    f"--layers: the network has no layer {name!r} that can be drawn;"
                    f" {hint}it has {', '.join(self.names) or 'none'}"
                )
        if asked:
            return list(dict.fromkeys(asked))
        usual = [
            layer.name for layer, _ in self._maps if isinstance(layer, (*_CONVOLUTIONS, *_POOLS))
        ]
        if len(usual) <= _BY_DEFAULT:
            return usual
        return [usual[i] for i in np.linspace(0, len(usual) - 1, _BY_DEFAULT).round().astype(int)]

    def outputs(
        self, pixels: npt.NDArray[np.uint8], names: Sequence[str]
    ) -> list[npt.NDArray[np.float32]]:
        """What layers give, in inference.

        Args:
            pixels: uint8 of shape (n, size, size).
            names: Some of `names`.

        Returns:
            For each layer, maps of shape (n, height, width, maps) or units of shape (n, units).
        """
        probe = keras.Model(self._input, [self._tensors[name] for name in names])
        given = probe(self._normalized(pixels), training=False)
        # A model of one output gives it without a list around it.
        given = given if isinstance(given, list | tuple) else [given]
        return [_float32(one).numpy() for one in given]

    def class_activation(
        self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer[Any]]
    ) -> npt.NDArray[np.float32]:
        """Where in an image the evidence for a class is: Grad-CAM.

        The maps A of the layer `evidence`, weighted and summed: ReLU(sum over k of w_k A_k), where
        w_k is the mean over map k of the derivative of the class's logit; equations 1 and 2 of
        Selvaraju et al., Grad-CAM, ICCV 2017, https://arxiv.org/abs/1610.02391. Where global
        average pooling and one dense layer follow the maps, it is, but for a factor, the positive
        part of the class-activation map of Zhou et al., 2016, https://arxiv.org/abs/1512.04150.

        Args:
            pixels: uint8 of shape (n, size, size).
            labels: The class that is asked for, of each image.

        Returns:
            Maps of shape (n, height, width), at least 0, in logits; all 0 where nothing speaks for
            the class.

        Raises:
            ValueError: No layer of the network gives maps.
        """
        if self.evidence is None:
            raise ValueError("no layer of the network gives maps")
        probe, watch = self._watched(self.evidence)
        # A tape that records everything goes back through the whole network, and to the weights
        # too. With TensorFlow 2.21 that can crash: its oneDNN's derivative by the kernel of a 1x1
        # convolution with stride 2 corrupts the heap.
        with tf.GradientTape(watch_accessed_variables=False) as watch.tape:
            maps, logits = probe(self._normalized(pixels), training=False)
            # An image's logits depend on that image alone: the sum's derivatives are each one's.
            asked = tf.gather(logits, labels, axis=1, batch_dims=1)
        slopes = watch.tape.gradient(asked, maps, unconnected_gradients="zero")
        weights = tf.reduce_mean(_float32(slopes), axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * _float32(maps), axis=-1)).numpy()

    def _watched(self, name: str) -> tuple[keras.Model, _Watch]:
        """From normalised pixels to what a layer gives and the logits; what stands between them."""
        uses = [layer.name for layer, _ in _traced(self._network)[2]]
        # The last use, as in `outputs`.
        place = len(uses) - 1 - uses[::-1].index(name)
        watch = _Watch()
        first, last, found = _traced(self._network, place, watch)
        return keras.Model(first, [found[place][1], last]), watch

    def _normalized(self, pixels: npt.NDArray[np.uint8]) -> tf.Tensor:
        return self._normalization(tf.cast(pixels[..., None], tf.float32))

    def _evidence(self) -> str | None:
        """The last layer whose maps are as large as those of the last convolution.

        That is after its normalisation, its activation and the sum of its block, where there are
        any, but before a pooling that would coarsen the maps.
        """
        sides = [shape[1:3] for layer, shape in self._maps if isinstance(layer, _CONVOLUTIONS)]
        as_large = [layer.name for layer, shape in self._maps if sides and shape[1:3] == sides[-1]]
        return as_large[-1] if as_large else None


class _Watch(layers.Layer):
    """Gives what it takes, and has a tape watch it: the tape records nothing that comes before."""

    def __init__(self) -> None:
        super().__init__(autocast=False)
        self.tape: tf.GradientTape | None = None

    def call(self, maps: tf.Tensor) -> tf.Tensor:
        if self.tape is not None:
            self.tape.watch(maps)
        return maps


def _traced(
    network: keras.Model, place: int = -1, after: keras.Layer | None = None
) -> tuple[Any, Any, list[tuple[Any, Any]]]:
    """A network's input, output, and layers with what they give, as symbolic tensors.

    A layer's own `output` will not do: in a Sequential that was loaded, and in a layer that is
    used twice, it is one of several. A model within the network counts as one layer. Of a network
    that is neither Functional nor Sequential, no layer is known.

    Args:
        network: The network.
        place: The position, among the layers, of the one that `after` follows.
        after: A layer that gives what it takes.
    """
    found: list[tuple[Any, Any]] = []

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        given = layer(*arguments, **options)
        if isinstance(given, keras.KerasTensor):
            if after is not None and len(found) == place:
                given = after(given)
            found.append((layer, given))
        return given

    if isinstance(network, keras.Sequential):
        first = last = keras.Input(batch_shape=network.input.shape, dtype=network.input.dtype)
        for layer in network.layers:
            last = call(layer, last)
        return first, last, found
    if not hasattr(network, "operations"):
        return None, None, []
    same = keras.models.clone_model(network, clone_function=lambda one: one, call_function=call)
    return same.inputs[0], same.outputs[0], found


def _is_maps(tensor: Any) -> bool:
    """Whether a tensor is maps of more than one pixel, of known shape."""
    return len(tensor.shape) == 4 and None not in tensor.shape[1:3] and tensor.shape[1:3] != (1, 1)


def _float32(tensor: tf.Tensor) -> tf.Tensor:
    """In the precision that NumPy and Matplotlib know; a network may compute in bfloat16."""
    return tf.cast(tensor, tf.float32)
