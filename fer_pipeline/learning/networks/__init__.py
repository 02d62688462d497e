"""The networks, one module each: plain Keras 3, from normalised pixels to logits.

A module's `build(size, classes, **options)` makes its network; `model.name` in the configuration
names the module and `model.options` gives the options.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fer_pipeline.errors import ConfigError

if TYPE_CHECKING:
    import keras


def names() -> list[str]:
    """The networks that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def build(name: str, size: int, classes: int, options: Mapping[str, Any]) -> keras.Model:
    """Builds a network.

    Args:
        name: One of `names`.
        size: The side of the images, in pixels.
        classes: How many emotions there are.
        options: Further arguments of the module's `build`.

    Returns:
        A model from float32 of shape (n, size, size, 1) to logits of shape (n, classes).

    Raises:
        ConfigError: There is no such network, it has no such option, or it refuses a value.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names())}"
        raise ConfigError(f"model.name: no network {name!r}, {hint}")
    make = importlib.import_module(f"{__name__}.{name}").build
    known = list(inspect.signature(make).parameters)[2:]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ConfigError(
            f"model.options: {name} has no option {', '.join(unknown)}; it has {', '.join(known)}"
        )
    try:
        return make(size, classes, **options)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"model.options: {name} cannot be built for {size}x{size}: {reason}"
        ) from error
