"""Networks that cannot be built."""

from __future__ import annotations

from typing import Any

import pytest

from fer_pipeline.errors import ConfigError
from fer_pipeline.learning.networks import registry


def get_build_error(name: str, options: dict[str, Any], size: int = 28) -> str:
    """Return the message, one line, of the error that a network cannot be built for 7 classes."""
    with pytest.raises(ConfigError) as error:
        registry.build_network(name, size, 7, options)
    message = str(error.value)
    assert "\n" not in message
    return message
