"""One figure of a benchmark, as a line of its table."""

from typing import NamedTuple


class Figure(NamedTuple):
    """A measured figure.

    Attributes:
        name: What was measured.
        measurement: The measured number with its unit.
        goal: The goal for it; empty if there is none.
    """

    name: str
    measurement: str
    goal: str = ""
