"""A trained model as LiteRT files: in float32, and quantised to 8-bit integers."""

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
from fer_pipeline.learning.inference.export_manifest import FLOAT, INT8

_CONVOLUTIONS = {schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D}

SIGNATURE, INPUT, OUTPUT = "serving_default", "pixels", "probabilities"


def write_saved_model(model: keras.Model, path: Path) -> None:
    """Writes a model as TensorFlow's SavedModel, the form from which LiteRT's are made."""

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.float32, name=INPUT)])
    def serve(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT: model(pixels, training=False)}

    # Keras's own export stores every weight twice.
    module = tf.Module()
    module.weights = [variable.value for variable in model.weights]
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: serve})


def in_float32(model: keras.Model) -> bytes:
    """A model as a LiteRT file that computes in float32.

    Raises:
        RunError: LiteRT lacks one of its operations.
    """
    return _in_float32(model, FLOAT)


def _in_float32(model: keras.Model, form: str) -> bytes:
    with _converter(model, form) as converter:
        return converter.convert()


def in_int8(model: keras.Model, faces: npt.NDArray[np.uint8]) -> bytes:
    """A model as a LiteRT file that computes with 8-bit integers, quantised after training.

    Weights have a scale for each channel, activations one for each tensor, found on images (Jacob
    et al. 2018, arXiv:1712.05877). What goes in and comes out is float32, and both ends of the
    network stay in float32:

    - what comes before its second convolution, for there the roundings cost most and float32 least:
      of 5,000 Training images of FER2013 `mirrored` said of 0.8 % something else than in float32
      where it was 1.5 %, and `compact` of 0.9 % where it was 1.5 %, in 1.05 to 1.07 times the time;
    - the layer that gives the logits, and what follows it: as one of 256 values the two highest
      probabilities were the same for 3 % of the images (systems A and B), where it is chance which
      class wins.

    Args:
        model: One that computes in float32.
        faces: Images as it will see them, uint8 of shape (n, size, size).

    Raises:
        RunError: LiteRT lacks one of its operations, or can quantise none.
    """
    exact = _ends(_in_float32(model, INT8), model.output_shape[-1])

    def samples() -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        for face in faces:
            yield {INPUT: face[np.newaxis, ..., np.newaxis].astype(np.float32)}

    debugging = tf.lite.experimental
    with _converter(model, INT8) as converter:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        # The converter itself cannot leave out a layer.
        quantizer = debugging.QuantizationDebugger(
            converter=converter,
            debug_dataset=samples,
            debug_options=debugging.QuantizationDebugOptions(denylisted_nodes=exact),
        )
        return quantizer.get_nondebug_quantized_model()


def _ends(content: bytes, classes: int) -> list[str]:
    """The tensors that stay in float32, by name: both ends of the network, see `in_int8`.

    Of a network with one convolution only the end: the convolution is all that there is to gain.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    beginning: list[str] = []
    logits: list[str] = []
    convolutions = 0
    for operator in graph.operators:
        convolutions += model.operatorCodes[operator.opcodeIndex].builtinCode in _CONVOLUTIONS
        for tensor in (graph.tensors[output] for output in operator.outputs):
            name, shape = tensor.name.decode(), tensor.shapeSignature
            if convolutions < 2:
                beginning.append(name)
            # One number for each image and class: all from the logits on.
            if shape is not None and [*shape] == [-1, classes]:
                logits.append(name)
    return logits if convolutions < 2 else [*beginning, *logits]


@contextlib.contextmanager
def _converter(model: keras.Model, form: str) -> Iterator[Any]:
    """What converts a model; what LiteRT lacks is an error that names the form.

    Args:
        model: What is converted.
        form: What it becomes, a key of `output_kinds.EXPORT_FILES`.
    """
    # By way of a SavedModel, so that all forms have the same signature.
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        # That tf.lite will move to the package ai-edge-litert, which says nothing to a user.
        warnings.simplefilter("ignore", UserWarning)
        write_saved_model(model, Path(scratch))
        try:
            yield tf.lite.TFLiteConverter.from_saved_model(scratch, signature_keys=[SIGNATURE])
        except (ConverterError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(
                f"{model.name}: LiteRT has no form of it, leave {form} out: {reason}"
            ) from error
