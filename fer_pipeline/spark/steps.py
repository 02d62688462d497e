"""Description of the current step of a Python worker in its error messages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def error_context(step: str) -> Iterator[None]:
    """Add the description of a step to the traceback of any error in the `with` block.

    Spark passes errors of a Python worker to the driver only as the text of their traceback.

    Args:
        step: Description of the step and its file, such as "parsing a.csv".
    """
    try:
        yield
    except Exception as error:
        error.add_note(f"while {step}")
        raise
