"""Result of a benchmark."""

import statistics
from collections.abc import Sequence
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


def describe_ratios(
    rates: Sequence[float], reference_rates: Sequence[float], unit: str, decimals: int
) -> str:
    """Return the median and the range of the ratios of rates of the same rounds, and both medians.

    Args:
        rates: Measured rate in each round.
        reference_rates: Rate in each round to which the measured one is related.
        unit: Unit of the rates.
        decimals: Number of decimals of the ratios.
    """
    ratios = [rate / reference for rate, reference in zip(rates, reference_rates, strict=True)]
    middle, lowest, highest = (
        f"{ratio:.{decimals}f}" for ratio in (statistics.median(ratios), min(ratios), max(ratios))
    )
    medians = f"{statistics.median(rates):,.0f} / {statistics.median(reference_rates):,.0f}"
    return f"{middle} ({lowest} to {highest}; {medians} {unit})"
