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

# Names in the one signature of all export formats.
SIGNATURE_NAME = "serving_default"
INPUT_NAME = "pixels"
OUTPUT_NAME = "probabilities"


def write_saved_model(model: keras.Model, path: Path) -> None:
    """Write a model as TensorFlow's SavedModel, which is also the converter's input."""

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.float32, name=INPUT_NAME)])
    def serve(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT_NAME: model(pixels, training=False)}

    # Keras's own export stores each weight twice.
    module = tf.Module()
    module.weights = [variable.value for variable in model.weights]
    tf.saved_model.save(module, str(path), signatures={SIGNATURE_NAME: serve})


def convert_to_litert(model: keras.Model) -> bytes:
    """Return a model as the content of a LiteRT file that computes in float32.

    Raises:
        RunError: LiteRT does not support one of its operations.
    """
    return _convert_to_float32(model, LITERT)


def _convert_to_float32(model: keras.Model, format_name: str) -> bytes:
    with _open_converter(model, format_name) as converter:
        return converter.convert()


def convert_to_litert_int8(model: keras.Model, images: npt.NDArray[np.uint8]) -> bytes:
    """Return a model as the content of a LiteRT file, quantized to 8-bit integers after training.

    Weights have one scale per channel, activations one per tensor, found on images (Jacob et al.
    2018, arXiv:1712.05877). The input and the output are float32, and both ends of the network stay
    in float32:

    - all before its second convolution, because rounding costs the most accuracy there and float32
      the least time: for 5,000 Training images of FER2013 the prediction of `mirrored` differed
      from float32's for 0.8 % instead of 1.5 %, that of `compact` for 0.9 % instead of 1.5 %, in
      1.05 to 1.07 times the time;
    - the layer that returns the logits, and all after it: as one of 256 values the two highest
      probabilities were equal for 3 % of the images (systems A and B), so that chance decided which
      class wins.

    Args:
        model: Model that computes in float32.
        images: Images for the calibration, uint8 of shape (n, size, size).

    Raises:
        RunError: LiteRT does not support one of its operations, or cannot quantize any.
    """
    float32_tensors = _find_float32_tensors(
        _convert_to_float32(model, LITERT_INT8), model.output_shape[-1]
    )

    def iterate_samples() -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        for image in images:
            yield {INPUT_NAME: image[np.newaxis, ..., np.newaxis].astype(np.float32)}

    debugging = tf.lite.experimental
    with _open_converter(model, LITERT_INT8) as converter:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = iterate_samples
        # The converter itself has no option to leave layers in float32.
        quantizer = debugging.QuantizationDebugger(
            converter=converter,
            debug_dataset=iterate_samples,
            debug_options=debugging.QuantizationDebugOptions(denylisted_nodes=float32_tensors),
        )
        return quantizer.get_nondebug_quantized_model()


def _find_float32_tensors(content: bytes, classes: int) -> list[str]:
    """Return the names of the tensors at both ends of a network, see `convert_to_litert_int8`.

    For a network with one convolution these are only the tensors of its end, because nothing but
    the convolution is worth quantizing.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    first_tensors: list[str] = []
    last_tensors: list[str] = []
    convolutions = 0
    for operator in graph.operators:
        convolutions += model.operatorCodes[operator.opcodeIndex].builtinCode in _CONVOLUTIONS
        for tensor in (graph.tensors[output] for output in operator.outputs):
            name, shape = tensor.name.decode(), tensor.shapeSignature
            if convolutions < 2:
                first_tensors.append(name)
            # From the logits on, tensors have one number per image and class.
            if shape is not None and [*shape] == [-1, classes]:
                last_tensors.append(name)
    return last_tensors if convolutions < 2 else [*first_tensors, *last_tensors]


@contextlib.contextmanager
def _open_converter(model: keras.Model, format_name: str) -> Iterator[Any]:
    """Provide a converter for a model, and translate its errors.

    Args:
        model: Model to convert.
        format_name: Key of `output_kinds.EXPORT_FILES`, for the message.

    Raises:
        RunError: LiteRT does not support an operation.
    """
    # From a SavedModel, so that all formats have the same signature.
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        # tf.lite warns that it will move to the package ai-edge-litert, which is no use to users.
        warnings.simplefilter("ignore", UserWarning)
        write_saved_model(model, Path(scratch))
        try:
            yield tf.lite.TFLiteConverter.from_saved_model(scratch, signature_keys=[SIGNATURE_NAME])
        except (ConverterError, ValueError) as error:
            raise RunError(
                f"{model.name}: cannot be converted to LiteRT, leave {format_name} out:"
                f" {one_line(error)[:200]}"
            ) from error
