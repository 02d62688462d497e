"""A comparison of models for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from fer_pipeline.comparison import Comparison
from fer_pipeline.intervals import Interval
from fer_pipeline.metrics import Metrics

_LEAST = 1e-99


def cost_table(found: Comparison) -> str:
    """What each model's answer costs, one row each, and how that was measured."""
    header = ("model", "network", "pixels", "precision", "parameters", "multiply-adds")
    rows: list[Sequence[str]] = [(*header, "images/s", "ratio")]
    for entry, ratio in zip(found.entries, found.ratios, strict=True):
        cost = entry.cost
        rows.append(
            (
                entry.name,
                entry.network,
                f"{entry.size}x{entry.size}",
                entry.precision,
                f"{cost.parameters:,}",
                "?" if cost.multiply_adds is None else f"{cost.multiply_adds:,}",
                f"{cost.images_per_second:,.0f}",
                f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.4f}",
            )
        )
    return "\n".join([*_aligned(rows, "<<<<>>>>"), *_cost_notes(found)])


def _cost_notes(found: Comparison) -> list[str]:
    conditions = found.conditions
    notes = [
        "(multiply-adds: of convolutions and dense layers, for one image; images/s: forward passes",
        f" in batches of {conditions.batch_size:,}, cores: {conditions.cores}; ratio: to the first"
        " model)",
    ]
    if conditions.flip_tta:
        notes.append("(with flips averaged an answer takes two passes: these costs are of one)")
    for entry in found.entries:
        if entry.cost.uncounted_layers:
            kinds = ", ".join(entry.cost.uncounted_layers)
            notes.append(f"({entry.name}: counted as 0: {kinds})")
    return notes


def quality_table(found: Comparison) -> str:
    """How good each model is, one row each."""
    new = found.entries[0].new
    header = ["model", "accuracy, all", "mean per class, all"]
    if new:
        header += ["accuracy, new", "mean per class, new"]
    rows = [[*header, "ECE"]]
    for entry in found.entries:
        cells = [cell for result in (entry.result, entry.new) if result for cell in _cells(result)]
        rows.append([entry.name, *cells, f"{100 * entry.result.calibration.error:.1f}"])
    return "\n".join([*_aligned(rows, "<" + ">" * len(header)), *_quality_notes(found)])


def _quality_notes(found: Comparison) -> list[str]:
    first = (
        "(in per cent, with 95 % intervals; ECE: expected calibration error, on all; all:"
        f" {found.rows:,} images"
    )
    new = found.entries[0].new
    if new:
        last = f" new: the {new.rows:,} of them without an exact copy in the train split)"
        return [f"{first};", last]
    if found.copies is None:
        return [f"{first})"]
    having = "none of them has" if not found.copies else "all of them have"
    return [f"{first};", f" {having} an exact copy in the train split)"]


def _cells(result: Metrics) -> tuple[str, str]:
    return (
        _between(result.accuracy, result.intervals.accuracy),
        _between(result.mean_class_accuracy, result.intervals.mean_class_accuracy),
    )


def _between(fraction: float, interval: Interval) -> str:
    return f"{100 * fraction:.1f} [{100 * interval.low:.1f}..{100 * interval.high:.1f}]"


def pair_table(found: Comparison) -> str:
    """Whether two models differ, one row for each pair."""
    rows = [("first", "second", "points", "only first", "only second", "p", "Holm", "at 5 %")]
    for pair in found.pairs:
        rows.append(
            (
                found.entries[pair.first].name,
                found.entries[pair.second].name,
                f"{100 * found.difference(pair):+.1f}",
                f"{pair.only_first:,}",
                f"{pair.only_second:,}",
                _chance(pair.p),
                _chance(pair.adjusted),
                "significant" if pair.significant else "not significant",
            )
        )
    notes = [
        "(points: of accuracy, the first less the second; only: images that this one alone gets"
        " right;",
        " p: McNemar's exact test, two-sided; Holm: p corrected over all pairs, which decides)",
    ]
    return "\n".join([*_aligned(rows, "<<>>>>><"), *notes])


def _chance(p: float) -> str:
    return f"{p:.2g}" if p >= _LEAST else f"<{_LEAST:.0g}"


def _aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
