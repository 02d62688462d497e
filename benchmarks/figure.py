"""Result of a benchmark."""

from typing import NamedTuple


class Figure(NamedTuple):
    """Measured figure with its goal.

    Attributes:
        name: Name of the measured quantity.
        measurement: Measured number with its unit.
        goal: Goal for the measurement, for example "at least 20"; empty if there is no goal.
    """

    name: str
    measurement: str
    goal: str = ""
