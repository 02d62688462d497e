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
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python.convert import ConverterError

from fer_pipeline.errors import RunError
from fer_pipeline.learning.model.exports import FLOAT, INT8

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
    et al. 2018, arXiv:1712.05877). What goes in and comes out is float32. The layer that gives the
    logits, and what follows it, stay in float32: as one of 256 values the two highest
    probabilities were the same for 3 % of FER2013's images (systems A and B), where it is chance
    which class wins.

    Args:
        model: One that computes in float32.
        faces: Images as it will see them, uint8 of shape (n, size, size).

    Raises:
        RunError: LiteRT lacks one of its operations, or can quantise none.
    """
    exact = _names_of_logits(_in_float32(model, INT8), model.output_shape[-1])

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


def _names_of_logits(content: bytes, classes: int) -> list[str]:
    """The tensors that are one number for each image and class: all from the logits on."""
    details = Interpreter(model_content=content).get_tensor_details()
    return [each["name"] for each in details if [*each["shape_signature"]] == [-1, classes]]


@contextlib.contextmanager
def _converter(model: keras.Model, form: str) -> Iterator[Any]:
    """What converts a model; what LiteRT lacks is an error that names the form.

    Args:
        model: What is converted.
        form: What it becomes, a key of `publication.EXPORTED`.
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
