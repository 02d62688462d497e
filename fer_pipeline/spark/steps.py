"""Names of the steps that Python workers perform, for their error messages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def error_context(step: str) -> Iterator[None]:
    """Add to the traceback of an error within which step failed, and on which file.

    Spark passes the traceback on to the driver, where the worker's own frames are the only trace.

    Args:
        step: The step and its file, such as "parsing a.csv".
    """
    try:
        yield
    except Exception as error:
        error.add_note(f"while {step}")
        raise
