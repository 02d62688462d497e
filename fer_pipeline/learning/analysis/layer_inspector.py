"""Outputs of the layers of a trained network, and Grad-CAM maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers

from fer_pipeline.errors import RunError
from fer_pipeline.text import suggest_name

_CONVOLUTIONS = (
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
    layers.Conv2DTranspose,
)
_POOLINGS = (layers.MaxPooling2D, layers.AveragePooling2D)
_MAX_DEFAULT_LAYERS = 8  # the plot of more layers does not fit on a page


class LayerInspector:
    """Access to the layer outputs of a serving model, which maps raw pixels to probabilities.

    The function `build_serving_model` builds such a model. A layer can be plotted if it returns
    feature maps, of shape (n, height, width, channels), or the outputs of dense units, of shape
    (n, units).

    Attributes:
        layer_names: Names of the layers that can be plotted, in the order of the forward pass.
        cam_layer: Name of the layer for Grad-CAM, a method for class activation maps (CAM); None if
            no convolution returns feature maps larger than 1x1.
    """

    def __init__(self, model: keras.Model) -> None:
        """Record the symbolic output of each layer of a network, and find the layer for Grad-CAM.

        Args:
            model: Serving model: a layer `normalization`, the network as a nested model, and a
                softmax.
        """
        self._normalization = model.get_layer("normalization")
        # Exactly one layer is itself a model: the network that maps normalised pixels to logits.
        (self._network,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
        self._input, _, outputs = _trace_layers(self._network)
        self._output_tensors = {
            layer.name: tensor for layer, tensor in outputs if len(tensor.shape) in (2, 4)
        }
        self._feature_map_layers = [
            (layer, tensor.shape) for layer, tensor in outputs if _is_feature_map(tensor)
        ]
        self.layer_names = tuple(self._output_tensors)
        self.cam_layer = self._find_cam_layer()

    def select_layers(self, names: Sequence[str] = ()) -> list[str]:
        """Select the layers to plot.

        By default these are the convolution and pooling layers that return feature maps larger than
        1x1. If there are more than eight, eight evenly spaced layers are selected, including the
        first and the last one.

        Args:
            names: Names of the requested layers; empty for the default.

        Returns:
            Names of the layers, without duplicates.

        Raises:
            RunError: A requested layer does not exist, or its output has neither two nor four
                dimensions.
        """
        for name in names:
            if name not in self._output_tensors:
                raise RunError(
                    f"--layers: the network has no layer {name!r} that can be plotted,"
                    f" {suggest_name(name, self.layer_names)} (all that can be plotted:"
                    f" {', '.join(self.layer_names) or 'none'})"
                )
        if names:
            return list(dict.fromkeys(names))
        defaults = [
            layer.name
            for layer, _ in self._feature_map_layers
            if isinstance(layer, (*_CONVOLUTIONS, *_POOLINGS))
        ]
        if len(defaults) <= _MAX_DEFAULT_LAYERS:
            return defaults
        indices = np.linspace(0, len(defaults) - 1, _MAX_DEFAULT_LAYERS).round().astype(int)
        return [defaults[index] for index in indices]

    def compute_layer_outputs(
        self, pixels: npt.NDArray[np.uint8], names: Sequence[str]
    ) -> list[npt.NDArray[np.float32]]:
        """Run the network in inference mode and return the outputs of some layers.

        Args:
            pixels: Raw images, uint8 of shape (n, size, size).
            names: Names of the layers, a subset of `layer_names`.

        Returns:
            The output of each layer in `names`, float32: feature maps of shape
            (n, height, width, channels), or the outputs of dense units, of shape (n, units).
        """
        probe = keras.Model(self._input, [self._output_tensors[name] for name in names])
        outputs = probe(self._normalize(pixels), training=False)
        # A model with one output returns a tensor and not a list.
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        return [_to_float32(output).numpy() for output in outputs]

    def compute_class_activation_maps(
        self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer[Any]]
    ) -> npt.NDArray[np.float32]:
        """Compute a Grad-CAM map for each image, which shows the regions that support a class.

        The map is ReLU(sum over k of w_k A_k). A_k are the feature maps of the layer `cam_layer`.
        The weight w_k is the derivative of the class's logit with respect to A_k, averaged over the
        positions of A_k (equations 1 and 2 of Selvaraju et al., Grad-CAM, ICCV 2017,
        https://arxiv.org/abs/1610.02391).

        Args:
            pixels: Raw images, uint8 of shape (n, size, size).
            labels: Index of the class for each image, integers of shape (n,).

        Returns:
            Non-negative maps in the unit of the logits, float32 of shape (n, height, width). Height
            and width are those of the feature maps. A map is 0 everywhere if no region supports the
            class.

        Raises:
            ValueError: `cam_layer` is None.
        """
        if self.cam_layer is None:
            raise ValueError("no layer of the network returns feature maps")
        probe, tape_watch = self._build_grad_cam_model(self.cam_layer)
        # By default a tape records the whole network and all weights. With TensorFlow 2.21 this can
        # crash: in oneDNN, the gradient of the kernel of a 1x1 convolution with stride 2 corrupts
        # the heap. The tape therefore starts at the layer `cam_layer` and ignores the weights.
        with tf.GradientTape(watch_accessed_variables=False) as tape_watch.tape:
            features, logits = probe(self._normalize(pixels), training=False)
            # The logits of an image depend on this image only, so the gradient of the sum over all
            # images contains the gradient for each image.
            class_logits = tf.gather(logits, labels, axis=1, batch_dims=1)
        gradients = tape_watch.tape.gradient(class_logits, features, unconnected_gradients="zero")
        # If global average pooling and one dense layer follow the feature maps, the map equals, up
        # to a factor, the positive part of the class activation map of Zhou et al., 2016,
        # https://arxiv.org/abs/1512.04150.
        weights = tf.reduce_mean(_to_float32(gradients), axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * _to_float32(features), axis=-1)).numpy()

    def _build_grad_cam_model(self, name: str) -> tuple[keras.Model, _TapeWatch]:
        """Build a model that returns the feature maps and the logits that Grad-CAM needs.

        Args:
            name: Name of the layer that returns the feature maps.

        Returns:
            A model that maps normalised pixels to the pair (feature maps, logits), and the layer of
            this model that makes a gradient tape watch the feature maps. The caller assigns the
            tape to the layer's attribute `tape` before running the model.
        """
        used_layers = [layer.name for layer, _ in _trace_layers(self._network)[2]]
        # If the layer is used several times, the last use counts, as in `compute_layer_outputs`.
        position = len(used_layers) - 1 - used_layers[::-1].index(name)
        tape_watch = _TapeWatch()
        network_input, network_output, outputs = _trace_layers(self._network, position, tape_watch)
        return keras.Model(network_input, [outputs[position][1], network_output]), tape_watch

    def _normalize(self, pixels: npt.NDArray[np.uint8]) -> tf.Tensor:
        """Return normalised pixels, float32 of shape (n, size, size, 1)."""
        return self._normalization(tf.cast(pixels[..., None], tf.float32))

    def _find_cam_layer(self) -> str | None:
        """Find the layer for Grad-CAM: the last one with the resolution of the last convolution.

        The resolution is the height and width of the output. This layer comes after the batch
        normalisation, the activation and the residual sum that follow the convolution, but before a
        pooling that would reduce the resolution.

        Returns:
            Name of the layer; None if no convolution returns feature maps larger than 1x1.
        """
        convolution_sizes = [
            shape[1:3]
            for layer, shape in self._feature_map_layers
            if isinstance(layer, _CONVOLUTIONS)
        ]
        if not convolution_sizes:
            return None
        height_and_width = convolution_sizes[-1]
        return [
            layer.name
            for layer, shape in self._feature_map_layers
            if shape[1:3] == height_and_width
        ][-1]


class _TapeWatch(layers.Layer):
    """An identity layer that makes a gradient tape watch its input.

    The tape then records only the layers after this one.

    Attributes:
        tape: Gradient tape that watches the input; None if there is no tape yet.
    """

    def __init__(self) -> None:
        """Create the layer without a gradient tape; it does not cast its input."""
        super().__init__(autocast=False)
        self.tape: tf.GradientTape | None = None

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the input unchanged; if `tape` is set, make this gradient tape watch the input."""
        if self.tape is not None:
            self.tape.watch(inputs)
        return inputs


def _trace_layers(
    network: keras.Model, position: int = -1, inserted: keras.Layer | None = None
) -> tuple[Any, Any, list[tuple[Any, Any]]]:
    """Call the layers of a network on a symbolic input and record their outputs.

    `layer.output` cannot be used. It is ambiguous for a layer that was called more than once, such
    as a shared layer or a layer of a Sequential model loaded from a file. A nested model counts as
    one layer. The layers keep their weights; only the calls are new.

    Args:
        network: A built network.
        position: Index, in the returned list, of the layer after which `inserted` is called;
            ignored if `inserted` is None.
        inserted: Identity layer to insert; None to insert no layer.

    Returns:
        The symbolic input of the network, its symbolic output, and a list of its layers with their
        symbolic outputs, in the order of the calls. Layers that do not return a single tensor are
        not listed. If the network is neither Functional nor Sequential: None, None and an empty
        list.
    """
    outputs: list[tuple[Any, Any]] = []

    def call_and_record(layer: Any, *arguments: Any, **options: Any) -> Any:
        """Call a layer, append the layer and its output to `outputs`, and return the output.

        An output that is not a single tensor is not appended. If the index of the layer in
        `outputs` is `position`, `inserted` is called on the output first, and its result is
        recorded as the layer's output.
        """
        output = layer(*arguments, **options)
        if isinstance(output, keras.KerasTensor):
            if inserted is not None and len(outputs) == position:
                output = inserted(output)
            outputs.append((layer, output))
        return output

    if isinstance(network, keras.Sequential):
        network_input = keras.Input(batch_shape=network.input.shape, dtype=network.input.dtype)
        features = network_input
        for layer in network.layers:
            features = call_and_record(layer, features)
        return network_input, features, outputs
    if not hasattr(network, "operations"):
        return None, None, []
    clone = keras.models.clone_model(
        network, clone_function=lambda layer: layer, call_function=call_and_record
    )
    return clone.inputs[0], clone.outputs[0], outputs


def _is_feature_map(tensor: Any) -> bool:
    """Return whether a symbolic tensor contains feature maps that are larger than 1x1.

    Feature maps have the shape (n, height, width, channels). The result is False if the height or
    width is unknown.
    """
    return len(tensor.shape) == 4 and None not in tensor.shape[1:3] and tensor.shape[1:3] != (1, 1)


def _to_float32(tensor: tf.Tensor) -> tf.Tensor:
    """Cast a tensor to float32, because NumPy and Matplotlib do not support bfloat16."""
    return tf.cast(tensor, tf.float32)
