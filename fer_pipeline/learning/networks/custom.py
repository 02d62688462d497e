"""Custom networks: users write them and give the dotted name of their module or function.

The setting `model.name` is then `package.module`, with a function `build` in the module, or
`package.module.function`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
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


def build_custom_network(
    name: str, size: int, classes: int, options: Mapping[str, Any]
) -> keras.Model:
    """Import a user's module and build its network.

    The module may also be in the current folder. A warning is logged if the network contains 1x1
    convolutions with strides, because training them may crash in TensorFlow.

    Args:
        name: `package.module` for a module with a function `build`, or `package.module.function`.
        size: Height and width of the images, in pixels.
        classes: Number of classes.
        options: Further keyword arguments of the user's function (the setting `model.options`).

    Returns:
        A model that maps normalised pixels, float32 of shape (n, size, size, 1), to logits of
        shape (n, classes).

    Raises:
        ConfigError: The module or the function does not exist or fails, an option is unknown, or
            the function does not return a Keras model that maps these images to logits.
    """
    with _add_current_folder_to_sys_path():
        build = import_build_function(name)
        build_arguments.BuildOptions.from_function(build).require_known(name, options)
        try:
            network = build(size, classes, **options)
        except Exception as error:
            call = f"{name} failed for {size}x{size} pixels and {classes} classes"
            raise ConfigError(f"model.name: {call}: {_describe_failure(error, name)}") from error
        _require_logits(name, network, size, classes)
    _warn_about_strided_shortcuts(name, network)
    return network


def require_package(name: str) -> None:
    """Check that a custom network has a dotted name, and that its package exists.

    The package is not imported, because it would import Keras, which takes seconds.

    Args:
        name: `package.module` for a module with a function `build`, or `package.module.function`.

    Raises:
        ConfigError: `name` is not a dotted name, or there is no such package.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(
            f"model.name: {name!r} is not a valid dotted name; expected package.module or"
            " package.module.function"
        )
    with _add_current_folder_to_sys_path():
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            raise _make_missing_module_error(name)


def _make_missing_module_error(name: str) -> ConfigError:
    """Return the error about a custom network whose module does not exist."""
    return ConfigError(
        f"model.name: no module {name.rpartition('.')[0]} for {name}; add the folder that contains"
        " it to PYTHONPATH, or run the job in that folder"
    )


@contextlib.contextmanager
def _add_current_folder_to_sys_path() -> Iterator[None]:
    """Let Python import modules from the current folder, too, in the `with` block.

    The folder is appended to `sys.path`, unless `sys.path` contains it already.
    """
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


def import_build_function(name: str) -> Callable[..., Any]:
    """Import the user's function that builds a custom network.

    Args:
        name: `package.module` for a module with a function `build`, or `package.module.function`.
            If there is a module with the whole name, its function `build` is imported.

    Raises:
        ConfigError: The module or the function does not exist, or the import fails.
    """
    module, function_name = _import_module(name, name), "build"
    if module is None:
        parent, _, function_name = name.rpartition(".")
        module = _import_module(parent, name)
        if module is None:
            raise _make_missing_module_error(name)
    function = getattr(module, function_name, None)
    if not callable(function):
        location = getattr(module, "__file__", None) or "a folder of modules"
        raise ConfigError(
            f"model.name: {module.__name__} ({location}) has no function {function_name}; expected"
            f" {function_name}(size, classes, **options), which returns a keras.Model"
        )
    return function


def _import_module(module_name: str, network_name: str) -> ModuleType | None:
    """Import a module from `sys.path` or the current folder, if it exists.

    Args:
        module_name: Dotted name of the module.
        network_name: Dotted name of the custom network, for the error message.

    Returns:
        The module; None if the module, or a package that contains it, does not exist.

    Raises:
        ConfigError: The import fails for another reason.
    """
    try:
        with _add_current_folder_to_sys_path():
            return importlib.import_module(module_name)
    except Exception as error:
        # An existing module may itself import a module that does not exist.
        missing_module = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing_module and f"{module_name}.".startswith(f"{missing_module}."):
            return None
        raise ConfigError(
            f"model.name: importing {module_name} failed: {_describe_failure(error, network_name)}"
        ) from error


def _describe_failure(error: Exception, name: str) -> str:
    """Describe an error on one line, with the file and line of the user's code that failed.

    The file and line are left out if the traceback contains no code of the user's package. The
    whole traceback is logged at level DEBUG.

    Args:
        error: The error, with its traceback.
        name: Dotted name of the custom network; its first part is the user's package.
    """
    log.debug("%s", name, exc_info=error)
    location, trace = "", error.__traceback__
    while trace:
        frame = trace.tb_frame
        if str(frame.f_globals.get("__name__")).split(".")[0] == name.split(".")[0]:
            location = f" ({frame.f_code.co_filename}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {build_arguments.summarize_error(error)}{location}"


def _warn_about_strided_shortcuts(name: str, network: keras.Model) -> None:
    """Log a warning if a network has 1x1 convolutions with strides, whose training may crash.

    Residual networks often use such convolutions as shortcuts. With TensorFlow 2.21 and oneDNN,
    computing the gradient of their kernels writes outside the allocated memory. If
    TF_ENABLE_ONEDNN_OPTS=0 turns oneDNN off, nothing is logged.

    Args:
        name: Dotted name of the custom network, for the warning.
        network: The network.
    """
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return
    import keras

    strided_layers = [
        layer.name
        for layer in _iterate_layers(network)
        if isinstance(layer, keras.layers.Conv2D)
        and tuple(layer.kernel_size) == (1, 1)
        and tuple(layer.strides) != (1, 1)
    ]
    if strided_layers:
        log.warning(
            "%s: training may crash or silently go wrong in its 1x1 convolutions with strides (%s):"
            " TensorFlow 2.21 with oneDNN writes outside their memory; use MaxPooling2D(1, strides)"
            " before a convolution without strides, which is the same function, or set"
            " TF_ENABLE_ONEDNN_OPTS=0",
            name,
            ", ".join(strided_layers),
        )


def _iterate_layers(model: Any) -> Iterator[Any]:
    """Yield the layers of a model and, recursively, of its nested models."""
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _iterate_layers(layer)


def _require_logits(name: str, network: Any, size: int, classes: int) -> None:
    """Check that a network maps images to logits and does not end in a softmax.

    Args:
        name: Dotted name of the custom network, for the error message.
        network: Return value of the user's function.
        size: Height and width of the images, in pixels.
        classes: Number of classes.

    Raises:
        ConfigError: `network` is not a Keras model, does not accept the images, does not
            return the shape (n, classes), or ends in a softmax.
    """
    import keras

    if not isinstance(network, keras.Model):
        kind = type(network).__name__
        raise ConfigError(f"model.name: {name} returned {kind}, expected a keras.Model")
    try:
        logits = network(keras.Input((size, size, 1)))
        # A network for three channels accepts a symbolic image but fails with a real one.
        network(keras.ops.zeros((1, size, size, 1)))
    except Exception as error:
        raise ConfigError(
            f"model.name: the model of {name} does not accept images of shape"
            f" (None, {size}, {size}, 1): {_describe_failure(error, name)}"
        ) from error
    shape = getattr(logits, "shape", type(logits).__name__)
    if shape != (None, classes):
        raise ConfigError(
            f"model.name: the model of {name} returns {shape}, expected logits of shape"
            f" (None, {classes})"
        )
    last_layer = network
    while isinstance(last_layer, keras.Model) and last_layer.layers:
        last_layer = last_layer.layers[-1]
    has_softmax = getattr(last_layer, "activation", None) is keras.activations.softmax
    if has_softmax or isinstance(last_layer, keras.layers.Softmax):
        raise ConfigError(
            f"model.name: the model of {name} ends in a softmax ({last_layer.name}); remove it: a"
            " network returns logits, and training adds the softmax"
        )
