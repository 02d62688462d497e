"""The floating-point type in which a network computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

# Names in /proc/cpuinfo of the x86 instructions that multiply bfloat16. Without them it is
# emulated, and slow.
_BFLOAT16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
_BFLOAT16_GPU_CAPABILITY = (8, 0)  # CUDA compute capability of Ampere


def resolve_precision(precision: str) -> str:
    """Return the precision for this machine: `mixed_bfloat16` for `auto` if the hardware has it.

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
        capabilities = [gpu.get("compute_capability", (0, 0)) for gpu in details]
        return all(capability >= _BFLOAT16_GPU_CAPABILITY for capability in capabilities)
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not _BFLOAT16_CPU_FLAGS.isdisjoint(flags.split())


@contextlib.contextmanager
def use_precision(name: str) -> Iterator[None]:
    """Make layers that are built within the context compute in a precision.

    Variables stay float32.

    Args:
        name: `float32` or `mixed_bfloat16`.
    """
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)
