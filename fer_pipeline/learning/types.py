"""Type aliases for TensorFlow and Keras objects."""

from __future__ import annotations

from typing import Any

Tensor = Any
"""A `tf.Tensor` or a symbolic Keras tensor. The alias is `Any`, because neither package has type
annotations."""
