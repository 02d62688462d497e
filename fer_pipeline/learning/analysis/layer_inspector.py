"""Outputs of a trained network's layers, and Grad-CAM class activation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers

from fer_pipeline.errors import RunError
from fer_pipeline.text import did_you_mean

_CONVOLUTIONS = (
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
    layers.Conv2DTranspose,
)
_POOLS = (layers.MaxPooling2D, layers.AveragePooling2D)
_MAX_DEFAULT_LAYERS = 8  # more sections do not fit on a page


class LayerInspector:
    """Access to the outputs of the layers of a model, as `build_serving_model` returns it.

    Attributes:
        layer_names: Names of the layers that can be plotted, in the order of the forward pass:
            those that return maps, of shape (n, height, width, maps), or units, of shape
            (n, units).
        cam_layer: Name of the layer whose maps `class_activation` uses; None if no layer returns
            maps.
    """

    def __init__(self, model: keras.Model) -> None:
        """Trace the layers of the model."""
        self._normalization = model.get_layer("normalization")
        # One of its layers is itself a model: the network from normalised pixels to logits.
        (self._network,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
        self._input, _, outputs = _trace_layers(self._network)
        self._tensors = {
            layer.name: tensor for layer, tensor in outputs if len(tensor.shape) in (2, 4)
        }
        self._maps = [(layer, tensor.shape) for layer, tensor in outputs if _is_feature_map(tensor)]
        self.layer_names = tuple(self._tensors)
        self.cam_layer = self._find_cam_layer()

    def select_layers(self, names: Sequence[str] = ()) -> list[str]:
        """Return the names of the layers to plot.

        Args:
            names: Requested layers; by default the convolutions and the poolings, or eight of them
                at even distances, the first and the last included.

        Raises:
            RunError: A requested layer does not exist or cannot be plotted.
        """
        for name in names:
            if name not in self._tensors:
                raise RunError(
                    f"--layers: the network has no layer {name!r} that can be plotted,"
                    f" {did_you_mean(name, self.layer_names)} (all that can be plotted:"
                    f" {', '.join(self.layer_names) or 'none'})"
                )
        if names:
            return list(dict.fromkeys(names))
        defaults = [
            layer.name for layer, _ in self._maps if isinstance(layer, (*_CONVOLUTIONS, *_POOLS))
        ]
        if len(defaults) <= _MAX_DEFAULT_LAYERS:
            return defaults
        indices = np.linspace(0, len(defaults) - 1, _MAX_DEFAULT_LAYERS).round().astype(int)
        return [defaults[index] for index in indices]

    def layer_outputs(
        self, pixels: npt.NDArray[np.uint8], names: Sequence[str]
    ) -> list[npt.NDArray[np.float32]]:
        """Return the outputs of layers in inference.

        Args:
            pixels: Images, uint8 of shape (n, size, size).
            names: Names of layers, from `layer_names`.

        Returns:
            For each layer, maps of shape (n, height, width, maps) or units of shape (n, units).
        """
        probe = keras.Model(self._input, [self._tensors[name] for name in names])
        outputs = probe(self._normalize(pixels), training=False)
        # A model with one output returns it without a list around it.
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        return [_to_float32(output).numpy() for output in outputs]

    def class_activation(
        self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer[Any]]
    ) -> npt.NDArray[np.float32]:
        """Compute the Grad-CAM map of a class for each image.

        The maps A of the layer `cam_layer` are weighted and summed: ReLU(sum over k of w_k A_k),
        with w_k the mean over map k of the derivative of the class's logit; equations 1 and 2 of
        Selvaraju et al., Grad-CAM, ICCV 2017, https://arxiv.org/abs/1610.02391. If global average
        pooling and one dense layer follow the maps, it is, up to a factor, the positive part of the
        class-activation map of Zhou et al., 2016, https://arxiv.org/abs/1512.04150.

        Args:
            pixels: Images, uint8 of shape (n, size, size).
            labels: Class of each image's map, integers of shape (n,).

        Returns:
            Maps of shape (n, height, width), at least 0, in logits; all 0 if no map supports the
            class.

        Raises:
            ValueError: No layer of the network returns maps.
        """
        if self.cam_layer is None:
            raise ValueError("no layer of the network returns maps")
        probe, watch = self._probe_with_watch(self.cam_layer)
        # A tape that records everything goes back through the whole network, and to the weights
        # too. With TensorFlow 2.21 that can crash: oneDNN's derivative of the kernel of a 1x1
        # convolution with stride 2 corrupts the heap.
        with tf.GradientTape(watch_accessed_variables=False) as watch.tape:
            maps, logits = probe(self._normalize(pixels), training=False)
            # An image's logits depend on that image alone, so the derivatives of the sum are those
            # of each logit.
            class_logits = tf.gather(logits, labels, axis=1, batch_dims=1)
        gradients = watch.tape.gradient(class_logits, maps, unconnected_gradients="zero")
        weights = tf.reduce_mean(_to_float32(gradients), axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * _to_float32(maps), axis=-1)).numpy()

    def _probe_with_watch(self, name: str) -> tuple[keras.Model, _TapeWatch]:
        """Return a model from normalised pixels to a layer's output and the logits.

        The second value is the layer that watches the output for the gradient tape.
        """
        uses = [layer.name for layer, _ in _trace_layers(self._network)[2]]
        # The last use, as in `layer_outputs`.
        position = len(uses) - 1 - uses[::-1].index(name)
        watch = _TapeWatch()
        first, last, outputs = _trace_layers(self._network, position, watch)
        return keras.Model(first, [outputs[position][1], last]), watch

    def _normalize(self, pixels: npt.NDArray[np.uint8]) -> tf.Tensor:
        return self._normalization(tf.cast(pixels[..., None], tf.float32))

    def _find_cam_layer(self) -> str | None:
        """Return the last layer whose maps are as large as those of the last convolution.

        It comes after the convolution's normalisation, activation and residual sum, if any, but
        before a pooling that would coarsen the maps.
        """
        sides = [shape[1:3] for layer, shape in self._maps if isinstance(layer, _CONVOLUTIONS)]
        as_large = [layer.name for layer, shape in self._maps if sides and shape[1:3] == sides[-1]]
        return as_large[-1] if as_large else None


class _TapeWatch(layers.Layer):
    """An identity layer that makes a tape watch its input, so that the tape records from there."""

    def __init__(self) -> None:
        super().__init__(autocast=False)
        self.tape: tf.GradientTape | None = None

    def call(self, maps: tf.Tensor) -> tf.Tensor:
        if self.tape is not None:
            self.tape.watch(maps)
        return maps


def _trace_layers(
    network: keras.Model, position: int = -1, inserted: keras.Layer | None = None
) -> tuple[Any, Any, list[tuple[Any, Any]]]:
    """Return a network's input, its output, and its layers with their outputs, symbolic tensors.

    A layer's own `output` is not enough: in a loaded Sequential, and for a layer that is used
    twice, it is one of several. A nested model counts as one layer. For a network that is neither
    Functional nor Sequential, the list is empty.

    Args:
        network: A built network.
        position: Position, among the layers, of the one after which `inserted` is called.
        inserted: An identity layer.
    """
    outputs: list[tuple[Any, Any]] = []

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        output = layer(*arguments, **options)
        if isinstance(output, keras.KerasTensor):
            if inserted is not None and len(outputs) == position:
                output = inserted(output)
            outputs.append((layer, output))
        return output

    if isinstance(network, keras.Sequential):
        first = last = keras.Input(batch_shape=network.input.shape, dtype=network.input.dtype)
        for layer in network.layers:
            last = call(layer, last)
        return first, last, outputs
    if not hasattr(network, "operations"):
        return None, None, []
    clone = keras.models.clone_model(
        network, clone_function=lambda layer: layer, call_function=call
    )
    return clone.inputs[0], clone.outputs[0], outputs


def _is_feature_map(tensor: Any) -> bool:
    """Return whether a tensor holds maps of known shape and of more than one pixel."""
    return len(tensor.shape) == 4 and None not in tensor.shape[1:3] and tensor.shape[1:3] != (1, 1)


def _to_float32(tensor: tf.Tensor) -> tf.Tensor:
    """Return a tensor as float32, because NumPy and Matplotlib do not support bfloat16."""
    return tf.cast(tensor, tf.float32)
