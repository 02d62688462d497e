"""A network of the user's own: `model.name` is the dotted name of a module or of a function."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fer_pipeline.errors import ConfigError
from fer_pipeline.learning.networks import build_arguments

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)


def build(name: str, size: int, classes: int, options: Mapping[str, Any]) -> keras.Model:
    """Builds the network that a dotted name stands for.

    Python looks for it in the current folder too, after everywhere else: no file there can take the
    place of a module that is installed.

    Args:
        name: `package.module`, which has a function `build`, or `package.module.function`.
        size: The side of the images, in pixels.
        classes: How many emotions there are.
        options: Further arguments of the function.

    Returns:
        A model from float32 of shape (n, size, size, 1) to logits of shape (n, classes).

    Raises:
        ConfigError: There is no such module or function, it fails, has no such option, or what it
            returns is no such model.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(
            f"model.name: {name!r} is no dotted name; expected package.module or"
            " package.module.function"
        )
    with _current_folder_importable():
        make = function(name)
        build_arguments.require_options(name, make, options)
        try:
            network = make(size, classes, **options)
        except Exception as error:
            call = f"{name} failed for {size}x{size} and {classes} classes"
            raise ConfigError(f"model.name: {call}: {_told(error, name)}") from error
        _require_network(name, network, size, classes)
    _warn_of_strides(name, network)
    return network


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    if folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def function(name: str) -> Callable[..., Any]:
    """What the dotted name means: a module's `build`, or else a function by its own name.

    Raises:
        ConfigError: There is no such module or function.
    """
    module, called = _module(name, name), "build"
    if module is None:
        parent, _, called = name.rpartition(".")
        module = _module(parent, name)
        if module is None:
            raise ConfigError(
                f"model.name: there is no module {parent} for {name}; put the folder that holds"
                " it on PYTHONPATH, or run the job there"
            )
    make = getattr(module, called, None)
    if not callable(make):
        where = getattr(module, "__file__", None) or "a folder of modules"
        raise ConfigError(
            f"model.name: {module.__name__} ({where}) has no function {called}; expected"
            f" {called}(size, classes, **options), which returns a keras.Model"
        )
    return make


def _module(path: str, name: str) -> ModuleType | None:
    """Imports a module; None where it, or a package around it, is not there."""
    try:
        with _current_folder_importable():
            return importlib.import_module(path)
    except Exception as error:
        # A module that is there may itself import one that is not.
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{path}.".startswith(f"{missing}."):
            return None
        raise ConfigError(f"model.name: importing {path} failed: {_told(error, name)}") from error


def _told(error: Exception, name: str) -> str:
    """What happened, and the last line of the user's own package where it did."""
    log.debug("%s", name, exc_info=error)
    place, trace = "", error.__traceback__
    while trace:
        frame = trace.tb_frame
        if str(frame.f_globals.get("__name__")).split(".")[0] == name.split(".")[0]:
            place = f" ({frame.f_code.co_filename}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {build_arguments.reason(error)}{place}"


def _warn_of_strides(name: str, network: keras.Model) -> None:
    """Warns of 1x1 convolutions with strides, the usual shortcut of residual networks.

    In TensorFlow 2.21 oneDNN's derivative by their kernel writes beyond its memory.
    """
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return
    import keras

    found = [
        layer.name
        for layer in _layers(network)
        if isinstance(layer, keras.layers.Conv2D)
        and tuple(layer.kernel_size) == (1, 1)
        and tuple(layer.strides) != (1, 1)
    ]
    if found:
        log.warning(
            "%s: training may crash, or go wrong unseen, in its 1x1 convolutions with strides (%s):"
            " TensorFlow 2.21 with oneDNN writes beyond their memory; MaxPooling2D(1, strides)"
            " before one without strides does the same, or set TF_ENABLE_ONEDNN_OPTS=0",
            name,
            ", ".join(found),
        )


def _layers(model: Any) -> Iterator[Any]:
    """The layers of a model, and those of the models within it."""
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _layers(layer)


def _require_network(name: str, network: Any, size: int, classes: int) -> None:
    """Refuses what cannot be trained on the images."""
    import keras

    if not isinstance(network, keras.Model):
        kind = type(network).__name__
        raise ConfigError(f"model.name: {name} returned {kind}, expected a keras.Model")
    try:
        logits = network(keras.Input((size, size, 1)))
        # One for three channels lets a symbolic image pass, and fails at the first real one.
        network(keras.ops.zeros((1, size, size, 1)))
    except Exception as error:
        raise ConfigError(
            f"model.name: the model of {name} does not take images of shape"
            f" (None, {size}, {size}, 1): {_told(error, name)}"
        ) from error
    shape = getattr(logits, "shape", type(logits).__name__)
    if shape != (None, classes):
        raise ConfigError(
            f"model.name: the model of {name} gives {shape}, expected logits of shape"
            f" (None, {classes})"
        )
    last = network
    while isinstance(last, keras.Model) and last.layers:
        last = last.layers[-1]
    softmax = getattr(last, "activation", None) is keras.activations.softmax
    if softmax or isinstance(last, keras.layers.Softmax):
        raise ConfigError(
            f"model.name: the model of {name} ends in a softmax ({last.name}); leave it out: a"
            " network gives logits, the run adds the softmax"
        )
