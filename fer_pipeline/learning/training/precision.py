"""In which floating-point type a network computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

# Instructions of x86 and their names in Linux; without them bfloat16 is emulated, and slow.
_FLAGS = {"avx512_bf16", "amx_bf16"}
_AMPERE = (8, 0)


def resolve_precision(precision: str) -> str:
    """What `auto` means on this machine: `mixed_bfloat16` where the hardware multiplies it.

    Args:
        precision: `float32`, `mixed_bfloat16` or `auto`.
    """
    if precision != "auto":
        return precision
    return "mixed_bfloat16" if _has_bfloat16() else "float32"


def _has_bfloat16() -> bool:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return all(found.get("compute_capability", (0, 0)) >= _AMPERE for found in details)
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not _FLAGS.isdisjoint(flags.split())


@contextlib.contextmanager
def use_precision(name: str) -> Iterator[None]:
    """Around the building of a network: its layers compute so. Variables stay float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
