"""Options and errors of the `build` function of a network."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from fer_pipeline.errors import ConfigError
from fer_pipeline.text import one_line


def require_known_options(name: str, build: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check that a `build` function has a parameter for each configured option.

    A function with a parameter such as `**options` accepts all options.

    Args:
        name: Name of the network, for the error message.
        build: Function that builds the network; its first two parameters, the image size and the
            number of classes, are not options.
        options: Configured options (the setting `model.options`), by parameter name.

    Raises:
        ConfigError: `build` lacks a parameter for an option; the message lists all such options.
    """
    parameters = list(inspect.signature(build).parameters.values())
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    option_names = [
        parameter.name
        for parameter in parameters[2:]
        if parameter.kind is not parameter.VAR_POSITIONAL
    ]
    unknown_options = [option for option in options if option not in option_names]
    if unknown_options:
        raise ConfigError(
            f"model.options: {name} has no option {', '.join(unknown_options)}; its options are"
            f" {', '.join(option_names) or 'none'}"
        )


def summarize_error(error: Exception) -> str:
    """Return the message of an exception on one line.

    Messages of Keras can contain escape sequences for bold text and a list of all arguments of the
    failed call. These are removed.
    """
    text = re.sub(r"\x1b\[\d*m", "", str(error)).partition("Arguments received by")[0]
    return one_line(text)
