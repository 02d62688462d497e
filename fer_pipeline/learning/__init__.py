"""The TensorFlow part of the package: input, networks, training, inference, export and analysis.

Importing this package imports neither TensorFlow nor Keras. It changes how they are imported later:
faster, and without start-up messages on stderr.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from fer_pipeline.io.stderr_filter import StderrFilter

# The device files of the GPU drivers of Linux and of the Windows subsystem for Linux.
_HAS_GPU_DRIVER = any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg"))

# These variables must be set before TensorFlow is imported. The first one hides start-up messages
# that do not concern users; without a driver also errors, because TensorFlow then logs that it
# could not initialize one. What fails is raised as an exception nevertheless.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if _HAS_GPU_DRIVER else "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if platform.machine().lower() in ("x86_64", "amd64"):
    # By default TensorFlow enables oneDNN only on processors with instructions for neural networks,
    # such as AVX512-VNNI. But oneDNN makes other processors 1.2 to 2.9 times as fast, too: compare
    # `python -m benchmarks networks` with and without TF_ENABLE_ONEDNN_OPTS=0.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_DEFERRED_MODULES = (
    "keras.src.visualization",
    "keras.visualization",
    "keras.wrappers",
    "keras._tf_keras.keras.visualization",
    "keras._tf_keras.keras.wrappers",
)
"""Modules of Keras that import scikit-learn and Matplotlib if these are installed, which takes
longer than to import the rest of Keras. They are executed when one of their names is first used."""

# TensorFlow applies TF_CPP_MIN_LOG_LEVEL only to messages after its start.
_LOG_LEVELS = b"IWE"
_START_MESSAGE = (
    rb"(?:\d{4}-\d\d-\d\d [\d:.]+: [%(levels)s] |[%(levels)s]\d{4} [\d:.]+ ).*\n"
    rb"(?:To enable the following instructions: .*\n)?"
    rb"|WARNING: All log messages before absl::InitializeLog\(\) is called .*\n"
)


def _remove_start_messages(text: bytes) -> bytes:
    """Remove TensorFlow's messages whose level is below TF_CPP_MIN_LOG_LEVEL from a text."""
    setting = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "")
    levels = _LOG_LEVELS[: int(setting) if setting.isdecimal() else 0]
    if not levels:
        return text
    return re.sub(_START_MESSAGE % {b"levels": levels}, b"", text)


_stderr_filter = StderrFilter(_remove_start_messages)


@contextlib.contextmanager
def _hide_jax() -> Iterator[None]:
    """Let imports of JAX fail in the `with` block, unless JAX has been imported already."""
    if "jax" in sys.modules:
        yield
        return
    sys.modules["jax"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["jax"]


_CONTEXTS: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "tensorflow": _stderr_filter.filter_stderr,
    "keras": _stderr_filter.filter_stderr,
    # To import JAX takes seconds. These modules do so if it is installed, but they need it only for
    # TFLiteConverter.experimental_from_jax, and for Orbax checkpoints with old versions of JAX.
    "tensorflow.lite.python.util": _hide_jax,
    "keras.src.callbacks.orbax_checkpoint": _hide_jax,
}
"""Context in which a module is executed, by name."""


class _ContextLoader(Loader):
    """A loader that executes a module in a context."""

    def __init__(
        self, loader: Loader, make_context: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        """Create the loader from the module's own loader and a function that opens the context."""
        self._loader = loader
        self._make_context = make_context

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module."""
        _restore_loader(module, self._loader)
        with self._make_context():
            self._loader.exec_module(module)


class _DeferringLoader(Loader):
    """A loader that executes a module when a name that it lacks is first used (PEP 562).

    `importlib.util.LazyLoader` would do so as soon as anything looks at the module's `__spec__` or
    `__file__`, as `inspect` does with all modules.
    """

    def __init__(self, loader: Loader) -> None:
        """Create the loader from the module's own loader."""
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Prepare the module so that it is executed later."""
        _restore_loader(module, self._loader)

        def load_and_get(name: str) -> Any:
            """Execute the module, and return one of its names."""
            del module.__dict__["__getattr__"]
            self._loader.exec_module(module)
            return getattr(module, name)

        module.__dict__["__getattr__"] = load_and_get


def _restore_loader(module: ModuleType, loader: Loader) -> None:
    """Set the loader of a module to its own loader, which can also return its source."""
    module.__loader__ = loader
    if module.__spec__:
        module.__spec__.loader = loader


class _TensorFlowFinder(MetaPathFinder):
    """A finder of the modules of TensorFlow and Keras that are executed in a different way."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of such a module; None for any other module."""
        if fullname not in _CONTEXTS and fullname not in _DEFERRED_MODULES:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, specs), None)
        if spec and spec.loader:
            spec.loader = (
                _ContextLoader(spec.loader, _CONTEXTS[fullname])
                if fullname in _CONTEXTS
                else _DeferringLoader(spec.loader)
            )
        return spec


sys.meta_path.insert(0, _TensorFlowFinder())
