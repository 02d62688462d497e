"""Conversion of a trained model to LiteRT, in float32 and quantized to 8-bit integers."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.lite.python.convert import ConverterError

from fer_pipeline.errors import RunError
from fer_pipeline.learning.inference.export_manifest import LITERT, LITERT_INT8
from fer_pipeline.text import one_line

_CONVOLUTIONS = {schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D}

# Names in the signature, which is the same in all export formats.
SIGNATURE_NAME = "serving_default"
INPUT_NAME = "pixels"
OUTPUT_NAME = "probabilities"


def write_saved_model(model: keras.Model, path: Path) -> None:
    """Write a model as a TensorFlow SavedModel; the LiteRT converter reads this format, too.

    Args:
        model: Model that maps raw pixels to probabilities.
        path: Output folder.
    """

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.float32, name=INPUT_NAME)])
    def serve(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        """Map raw pixels to class probabilities; this function is the SavedModel's signature."""
        return {OUTPUT_NAME: model(pixels, training=False)}

    # `model.export` is not used, because it stores each weight twice.
    module = tf.Module()
    module.weights = [variable.value for variable in model.weights]
    tf.saved_model.save(module, str(path), signatures={SIGNATURE_NAME: serve})


def convert_to_litert(model: keras.Model) -> bytes:
    """Convert a model to LiteRT in float32 and return the content of the LiteRT file.

    Raises:
        RunError: LiteRT does not support an operation of the model.
    """
    return _convert_without_quantization(model, LITERT)


def _convert_without_quantization(model: keras.Model, format_name: str) -> bytes:
    """Convert a model to LiteRT in float32 and return the content of the LiteRT file.

    Args:
        model: Model to convert.
        format_name: Name of the requested export format, for error messages. It is `litert_int8`
            if the float32 file is only used to prepare a quantization.

    Raises:
        RunError: LiteRT does not support an operation of the model.
    """
    with _open_converter(model, format_name) as converter:
        return converter.convert()


def convert_to_litert_int8(model: keras.Model, images: npt.NDArray[np.uint8]) -> bytes:
    """Convert a model to LiteRT in 8-bit integers and return the content of the LiteRT file.

    The model is quantized after the training (Jacob et al. 2018, arXiv:1712.05877). Weights have
    one scale per channel, activations one scale per tensor. The scales of the activations are
    determined by running the model on the calibration images.

    The input and the output are float32. These layers also remain in float32:

    - All layers before the second convolution, because in these layers rounding reduces the
      accuracy most, and float32 costs the least time.
    - The layer that returns the logits, and all layers after it, because quantized probabilities
      have only 256 possible values.

    Args:
        model: Model that computes in float32.
        images: Calibration images, uint8 of shape (n, size, size).

    Raises:
        RunError: LiteRT does not support an operation of the model, or cannot quantize the model.
    """
    # A fully quantized model assigned 1.5 % of 5,000 training images of FER2013 to a different
    # class than the float32 model did. With the first layers in float32 it was 0.8 % (network
    # `mirrored`) or 0.9 % (`compact`) of the images, in 1.05 to 1.07 times the time. With quantized
    # probabilities, the two highest were equal for 3 % of the images (networks `system_a` and
    # `system_b`), so that the predicted class was arbitrary.
    float32_tensors = _find_float32_tensor_names(
        _convert_without_quantization(model, LITERT_INT8), model.output_shape[-1]
    )

    def iterate_samples() -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        """Yield each calibration image as an input batch of size 1 with raw float32 pixels."""
        for image in images:
            yield {INPUT_NAME: image[np.newaxis, ..., np.newaxis].astype(np.float32)}

    debugging = tf.lite.experimental
    with _open_converter(model, LITERT_INT8) as converter:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = iterate_samples
        # Only the debugger has an option to keep layers in float32, not the converter itself.
        quantizer = debugging.QuantizationDebugger(
            converter=converter,
            debug_dataset=iterate_samples,
            debug_options=debugging.QuantizationDebugOptions(denylisted_nodes=float32_tensors),
        )
        return quantizer.get_nondebug_quantized_model()


def _find_float32_tensor_names(content: bytes, classes: int) -> list[str]:
    """Find the tensors that should remain in float32 when a model is quantized.

    These are the outputs of all layers before the second convolution, the logits, and all tensors
    after the logits. If the network has fewer than two convolutions, they are only the logits and
    the tensors after them, because otherwise the whole network would remain in float32.

    Args:
        content: Content of the LiteRT file of the model in float32.
        classes: Number of classes. A tensor of shape (n, classes) is the logits or a later tensor.

    Returns:
        Names of the tensors.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    first_tensors: list[str] = []
    last_tensors: list[str] = []
    convolution_count = 0
    for operator in graph.operators:
        operator_code = model.operatorCodes[operator.opcodeIndex].builtinCode
        convolution_count += operator_code in _CONVOLUTIONS
        for tensor in (graph.tensors[output] for output in operator.outputs):
            name, shape = tensor.name.decode(), tensor.shapeSignature
            if convolution_count < 2:
                first_tensors.append(name)
            # The logits and all later tensors have one number per image and class.
            if shape is not None and [*shape] == [-1, classes]:
                last_tensors.append(name)
    return last_tensors if convolution_count < 2 else [*first_tensors, *last_tensors]


@contextlib.contextmanager
def _open_converter(model: keras.Model, format_name: str) -> Iterator[Any]:
    """Provide a LiteRT converter for a model, and convert errors of the conversion to RunError.

    Args:
        model: Model to convert.
        format_name: Name of the requested export format, for the error message.

    Raises:
        RunError: The body of the `with` statement raised ConverterError or ValueError: LiteRT does
            not support an operation of the model, or cannot quantize the model.
    """
    # Converting a SavedModel gives all formats the same signature.
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        # tf.lite warns that it will move to the package ai-edge-litert, which users cannot change.
        warnings.simplefilter("ignore", UserWarning)
        write_saved_model(model, Path(scratch))
        try:
            yield tf.lite.TFLiteConverter.from_saved_model(scratch, signature_keys=[SIGNATURE_NAME])
        except (ConverterError, ValueError) as error:
            raise RunError(
                f"{model.name}: cannot be converted to LiteRT, leave {format_name} out:"
                f" {one_line(error)[:200]}"
            ) from error
