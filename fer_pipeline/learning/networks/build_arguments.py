"""What calling any network's `build` has in common."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from fer_pipeline.errors import ConfigError


def require_options(name: str, make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Makes sure that a `build` takes the options.

    Args:
        name: The network's, for the message.
        make: Its `build(size, classes, **options)`.
        options: What it shall be given.

    Raises:
        ConfigError: It has no such option; names all at once.
    """
    parameters = list(inspect.signature(make).parameters.values())
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return
    known = [one.name for one in parameters[2:] if one.kind is not one.VAR_POSITIONAL]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ConfigError(
            f"model.options: {name} has no option {', '.join(unknown)}; it has"
            f" {', '.join(known) or 'none'}"
        )


def reason(error: Exception) -> str:
    """What an exception says, as one plain line."""
    # Keras prints some of it in bold, and then repeats the arguments.
    text = re.sub(r"\x1b\[\d*m", "", str(error)).partition("Arguments received by")[0]
    return " ".join(text.split())
