"""Type aliases of the TensorFlow side."""

from __future__ import annotations

from typing import Any

Tensor = Any
"""A `tf.Tensor` or a symbolic Keras tensor: neither package has types."""
