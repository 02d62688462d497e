"""An evaluation's numbers for a terminal."""

from __future__ import annotations

import math

from fer_pipeline.metrics.bootstrap import CONFIDENCE_LEVEL, Interval
from fer_pipeline.metrics.classification import ClassScores, Metrics
from fer_pipeline.metrics.train_test_overlap import OverlapReport

_INTERVAL = f"{100 * CONFIDENCE_LEVEL:g} % interval"


def format_class_table(metrics: Metrics) -> str:
    """The table per class for a terminal: reference system A's, and accuracy, precision and F1.

    Each accuracy has its interval beside it; that of the macro average is the mean per class.
    """
    width = max(len(name) for name in [*(c.name for c in metrics.classes), "weighted average"])
    lines = [
        f"{'':<{width}}{'actual':>10}{'predicted':>11}{'true positives':>16}"
        f"{'accuracy':>10}{_INTERVAL:>17}{'precision':>11}{'F1':>9}"
    ]
    right = sum(c.true_positives for c in metrics.classes)
    intervals = metrics.intervals
    for c, interval in zip(metrics.classes, intervals.classes, strict=True):
        lines.append(
            f"{c.name:<{width}}{c.actual:>10,}{c.predicted:>11,}{c.true_positives:>16,}"
            f"{_percents(c.scores, interval)}"
        )
    for name, scores, interval in (
        ("macro average", metrics.macro, intervals.mean_class_accuracy),
        ("weighted average", metrics.weighted, intervals.accuracy),
    ):
        lines.append(f"{name:<{width}}{'':>37}{_percents(scores, interval)}")
    lines.append(
        f"{'all':<{width}}{metrics.rows:>10,}{metrics.rows:>11,}{right:>16,}"
        f"{format_percent(metrics.accuracy):>10}{format_interval(intervals.accuracy):>17}"
    )
    lines.append("(actual: the support; accuracy of a class: its recall; -: it has no image)")
    return "\n".join(lines)


def format_confusion_table(metrics: Metrics) -> str:
    """The confusion matrix for a terminal, as counts: rows are true, columns predicted."""
    names = [one.name for one in metrics.classes]
    counts = [[f"{count:,}" for count in row] for row in metrics.confusion]
    first = max(map(len, [*names, "true"]))
    widths = [
        2 + max(len(name), *(len(row[column]) for row in counts))
        for column, name in enumerate(names)
    ]
    header = "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    lines = ["images; rows: true class, columns: predicted class", f"{'':<{first}}{header}"]
    for name, row in zip(names, counts, strict=True):
        cells = "".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        lines.append(f"{name:<{first}}{cells}")
    return "\n".join(lines)


def format_confused_pairs(metrics: Metrics, pairs: int = 5) -> str:
    """The pairs most confused for a terminal: how many images, and what part of the true class."""
    shown = metrics.confused[:pairs]
    if not shown:
        return "nothing is confused"
    first = max(len(pair.true) for pair in shown)
    width = max(len("most confused"), *(first + 11 + len(pair.predicted) for pair in shown))
    lines = [f"{'most confused':<{width}}{'images':>9}{'of the true class':>20}"]
    for pair in shown:
        words = f"{pair.true:<{first}} taken for {pair.predicted}"
        lines.append(f"{words:<{width}}{pair.images:>9,}{format_percent(pair.share):>20}")
    return "\n".join(lines)


def format_overall_metrics(metrics: Metrics) -> str:
    """The numbers over all classes for a terminal, one a line."""
    intervals, calibration = metrics.intervals, metrics.calibration
    numbers = (
        (
            "accuracy",
            f"{format_percent(metrics.accuracy)} of {metrics.rows:,} images"
            f" ({_INTERVAL} {format_interval(intervals.accuracy)})",
        ),
        (
            "mean per-class accuracy",
            f"{format_percent(metrics.mean_class_accuracy)}"
            f" ({_INTERVAL} {format_interval(intervals.mean_class_accuracy)})",
        ),
        ("top-2 accuracy", format_percent(metrics.top2_accuracy)),
        ("loss", f"{metrics.loss:.4f} (mean cross-entropy, in nats)"),
        (
            "calibration error",
            f"{format_percent(calibration.error)} (expected, {len(calibration.bins)} bins;"
            f" mean confidence {format_percent(calibration.confidence)})",
        ),
    )
    return "\n".join(f"{name:<25}{value}" for name, value in numbers)


def format_coverage_table(metrics: Metrics) -> str:
    """Accuracy against coverage for a terminal: what only confident predictions would give.

    The least confidence is rounded down, so that it leaves no fewer images.
    """
    lines = [f"{'coverage':>8}{'images':>10}{'least confidence':>18}{'accuracy':>10}"]
    for one in metrics.coverage:
        least = math.floor(one.min_confidence * 10_000) / 10_000
        lines.append(
            f"{format_percent(one.coverage):>8}{one.images:>10,}{least:>18.4f}"
            f"{format_percent(one.accuracy):>10}"
        )
    return "\n".join(lines)


def format_overlap_table(copies: OverlapReport) -> str:
    """The accuracies with and without copies in training for a terminal, or why there is no table.

    Where no image has a copy, one line says so.
    """
    if not copies.count:
        why = " (split.deduplicate)" if copies.prevented else ""
        return f"no image has an exact copy in the train split{why}"
    lines = [
        f"{'exact copies in training':<25}{'images':>8}{'accuracy':>10}{_INTERVAL:>17}"
        f"{'mean per class':>16}{_INTERVAL:>17}"
    ]
    without = f"without {copies.count:,}"
    for name, found in (("all images", copies.every), (without, copies.rest)):
        if found is None:
            lines.append(f"{name:<25}{0:>8}{'-':>10}{'-':>17}{'-':>16}{'-':>17}")
            continue
        lines.append(
            f"{name:<25}{found.rows:>8,}{format_percent(found.accuracy):>10}"
            f"{format_interval(found.intervals.accuracy):>17}"
            f"{format_percent(found.mean_class_accuracy):>16}"
            f"{format_interval(found.intervals.mean_class_accuracy):>17}"
        )
    return "\n".join(lines)


def format_percent(fraction: float | None) -> str:
    """A fraction as per cent with one decimal; "-" for None."""
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def format_interval(interval: Interval | None) -> str:
    """An interval as per cent with one decimal; "-" for None."""
    return "-" if interval is None else f"{100 * interval.low:.1f}..{100 * interval.high:.1f} %"


def _percents(scores: ClassScores, interval: Interval | None) -> str:
    return (
        f"{format_percent(scores.accuracy):>10}{format_interval(interval):>17}"
        f"{format_percent(scores.precision):>11}{format_percent(scores.f1):>9}"
    )
