"""Registry of the networks: plain Keras 3 models that map normalised pixels to logits.

Each module of `architectures` contains one network and a function `build(size, classes, **options)`
that builds it on any Keras backend. The setting `model.name` is the name of such a module, and
`model.options` are the options of its `build`. A name with a dot refers to a custom network, see
`custom`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_pipeline.errors import ConfigError
from fer_pipeline.learning.networks import architectures, build_arguments, custom
from fer_pipeline.text import suggest_name

if TYPE_CHECKING:
    import keras


def list_network_names() -> list[str]:
    """Return the sorted names of the networks in the package `architectures`."""
    names = (module.name for module in pkgutil.iter_modules(architectures.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def is_custom_network(name: str) -> bool:
    """Return whether a name refers to a custom network, a module or function of the user.

    The name of a custom network contains a dot.
    """
    return "." in name


def import_network_module(name: str) -> None:
    """Import the module that defines a network.

    The import registers the network's custom layers, which Keras needs to load a saved model. An
    unknown name without a dot is ignored.

    Args:
        name: Name of a network of the package, such as `compact`, or dotted name of a custom
            network: `package.module` for a module with a function `build`, or
            `package.module.function`.

    Raises:
        ConfigError: The module of a custom network cannot be imported.
    """
    if is_custom_network(name):
        custom.import_build_function(name)
    elif name in list_network_names():
        importlib.import_module(f"{architectures.__name__}.{name}")


def build_network(name: str, size: int, classes: int, options: Mapping[str, Any]) -> keras.Model:
    """Build a network of the package or a custom network.

    Args:
        name: Name of a network of the package, such as `compact`, or dotted name of a custom
            network: `package.module` for a module with a function `build`, or
            `package.module.function`.
        size: Height and width of the images, in pixels.
        classes: Number of classes.
        options: Further keyword arguments of the function that builds the network (the setting
            `model.options`).

    Returns:
        A model that maps normalised pixels, float32 of shape (n, size, size, 1), to logits of
        shape (n, classes).

    Raises:
        ConfigError: The network or an option of it is unknown; the network does not accept the size
            or the value of an option; or a custom function fails or does not return a Keras model
            that maps these images to logits.
    """
    require_network(name, size, options)
    if is_custom_network(name):
        return custom.build_custom_network(name, size, classes, options)
    module = importlib.import_module(f"{architectures.__name__}.{name}")
    try:
        return module.build(size, classes, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"model.options: {name} cannot be built for {size}x{size} pixels:"
            f" {build_arguments.summarize_error(error)}"
        ) from error


def require_network(name: str, size: int, options: Mapping[str, Any]) -> None:
    """Check that a network can be built, as far as that is possible without importing Keras.

    For a custom network, only its name and the existence of its package are checked.

    Args:
        name: Name of a network, as in `build_network`.
        size: Height and width of the images, in pixels.
        options: The setting `model.options`.

    Raises:
        ConfigError: The network or an option of it is unknown, or the images are too small.
    """
    if is_custom_network(name):
        custom.require_package(name)
        return
    if name not in list_network_names():
        raise ConfigError(
            f"model.name: unknown network {name!r}, {suggest_name(name, list_network_names())} (the"
            " name of a custom network contains a dot, as in my_module.build)"
        )
    path = Path(architectures.__path__[0], f"{name}.py")
    build_arguments.BuildOptions.from_source(path).require_known(name, options)
    min_size = build_arguments.read_constant(path, "MIN_IMAGE_SIZE", default=1)
    if size < min_size:
        raise ConfigError(
            f"model.name: {name} cannot be built for {size}x{size} pixels: it needs at least"
            f" {min_size}x{min_size}; run preprocess with image.size={min_size} or more, or choose"
            " another network"
        )
