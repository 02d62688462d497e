"""The networks, one module each: plain Keras 3, from normalised pixels to logits.

A module's `build(size, classes, **options)` makes its network; `model.name` in the configuration
names the module and `model.options` gives the options. They build on any backend of Keras. A name
with a dot is a network of the user's own.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fer_pipeline.errors import ConfigError
from fer_pipeline.learning.networks import architectures, build_arguments, custom

if TYPE_CHECKING:
    import keras


def network_names() -> list[str]:
    """The networks that there are; a module with an underscore in front is none."""
    found = (module.name for module in pkgutil.iter_modules(architectures.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def is_custom(name: str) -> bool:
    """Whether a name stands for a network of the user's own."""
    return "." in name


def import_layers(name: str) -> None:
    """Imports what a saved network needs to be loaded: the layers of its module.

    Args:
        name: As for `build`.

    Raises:
        ConfigError: The module cannot be imported.
    """
    if is_custom(name):
        custom.function(name)
    elif name in network_names():
        importlib.import_module(f"{architectures.__name__}.{name}")


def build_network(name: str, size: int, classes: int, options: Mapping[str, Any]) -> keras.Model:
    """Builds a network.

    Args:
        name: One of `names`, or the dotted name of a module with a function `build`, or of a
            function.
        size: The side of the images, in pixels.
        classes: How many emotions there are.
        options: Further arguments of the network's `build`.

    Returns:
        A model from float32 of shape (n, size, size, 1) to logits of shape (n, classes).

    Raises:
        ConfigError: There is no such network, it has no such option, it refuses a value or the
            size; what the user's own function returns is no such model.
    """
    if is_custom(name):
        return custom.build(name, size, classes, options)
    if name not in network_names():
        near = difflib.get_close_matches(name, network_names(), n=1)
        hint = f"perhaps {near[0]}" if near else f"there are: {', '.join(network_names())}"
        raise ConfigError(
            f"model.name: no network {name!r}, {hint}; one of your own has a dot in its name, as in"
            " my_module.build"
        )
    module = importlib.import_module(f"{architectures.__name__}.{name}")
    build_arguments.require_options(name, module.build, options)
    smallest = getattr(module, "SMALLEST", 1)
    if size < smallest:
        raise ConfigError(
            f"model.name: {name} cannot be built for {size}x{size}: it needs at least"
            f" {smallest}x{smallest} pixels; run preprocess with image.size={smallest} or more, or"
            " take another network"
        )
    try:
        return module.build(size, classes, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"model.options: {name} cannot be built for {size}x{size}:"
            f" {build_arguments.reason(error)}"
        ) from error
