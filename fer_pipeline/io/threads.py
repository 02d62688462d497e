"""Threads for work that waits for a disk or a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_THREADS = 16


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Apply a function to all items, in threads, and yield the results in order."""
    with ThreadPoolExecutor(min(_THREADS, max(len(items), 1))) as pool:
        yield from pool.map(function, items)
