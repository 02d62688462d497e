"""Selection of the floating-point type in which a network computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

# Names in /proc/cpuinfo of the x86 instruction sets that multiply bfloat16 numbers. Without these
# instructions, bfloat16 is emulated and slow.
_BFLOAT16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
_BFLOAT16_GPU_CAPABILITY = (8, 0)  # CUDA compute capability of Ampere


def resolve_precision(precision: str) -> str:
    """Return the precision to use; replace `auto` by the best one on this machine.

    Args:
        precision: `float32`, `mixed_bfloat16` or `auto`.

    Returns:
        For `auto`, `mixed_bfloat16` if the hardware supports it, otherwise `float32`. The other
        values are returned unchanged.
    """
    if precision != "auto":
        return precision
    return "mixed_bfloat16" if _supports_bfloat16() else "float32"


def _supports_bfloat16() -> bool:
    """Return whether all GPUs support bfloat16 in hardware.

    On a machine without a GPU, return whether the processor supports it.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        capabilities = [gpu.get("compute_capability", (0, 0)) for gpu in details]
        return all(capability >= _BFLOAT16_GPU_CAPABILITY for capability in capabilities)
    try:
        cpu_info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    flags = next((line for line in cpu_info.splitlines() if line.startswith("flags")), "")
    return not _BFLOAT16_CPU_FLAGS.isdisjoint(flags.split())


@contextlib.contextmanager
def use_precision(name: str) -> Iterator[None]:
    """Set the precision of the Keras layers that are created in the `with` block.

    The layers compute in this precision; their variables remain float32.

    Args:
        name: `float32` or `mixed_bfloat16`.
    """
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)
