"""The files to which the graph of a network can be saved."""

from __future__ import annotations

from pathlib import Path

from fer_pipeline.errors import StorageError
from fer_pipeline.io import storage

GRAPH_SUFFIXES = (".pdf", ".png", ".svg")
"""Suffixes of the supported file formats."""


def require_graph_file(path: Path) -> None:
    """Check that a graph can be saved to a path, as far as that is possible in advance.

    Raises:
        StorageError: The suffix of the path is not supported, or its folder cannot be written.
    """
    if path.suffix not in GRAPH_SUFFIXES:
        raise StorageError(
            f"{path}: a network graph can be saved as {', '.join(GRAPH_SUFFIXES)}; choose a file"
            " name with one of these suffixes"
        )
    storage.require_writable(path.parent)
