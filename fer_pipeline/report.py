"""An evaluation's numbers for a terminal."""

from __future__ import annotations

from fer_pipeline.metrics import Metrics, Scores


def class_table(metrics: Metrics) -> str:
    """The table per class for a terminal: reference system A's, and accuracy, precision and F1."""
    width = max(len(name) for name in [*(c.name for c in metrics.classes), "weighted average"])
    lines = [
        f"{'':<{width}}{'actual':>10}{'predicted':>11}{'true positives':>16}"
        f"{'accuracy':>10}{'precision':>11}{'F1':>9}"
    ]
    rows = [(c.name, c.actual, c.predicted, c.true_positives, c.scores) for c in metrics.classes]
    right = sum(c.true_positives for c in metrics.classes)
    for name, actual, predicted, true, scores in rows:
        lines.append(f"{name:<{width}}{actual:>10,}{predicted:>11,}{true:>16,}{_percents(scores)}")
    for name, scores in (("macro average", metrics.macro), ("weighted average", metrics.weighted)):
        lines.append(f"{name:<{width}}{'':>37}{_percents(scores)}")
    lines.append(
        f"{'all':<{width}}{metrics.rows:>10,}{metrics.rows:>11,}{right:>16,}"
        f"{percent(metrics.accuracy):>10}"
    )
    lines.append("(actual: the support; accuracy of a class: its recall; -: it has no image)")
    return "\n".join(lines)


def confusion_table(metrics: Metrics) -> str:
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


def confused_table(metrics: Metrics, pairs: int = 5) -> str:
    """The pairs most confused for a terminal: how many images, and what part of the true class."""
    shown = metrics.confused[:pairs]
    if not shown:
        return "nothing is confused"
    first = max(len(pair.true) for pair in shown)
    width = max(len("most confused"), *(first + 11 + len(pair.predicted) for pair in shown))
    lines = [f"{'most confused':<{width}}{'images':>9}{'of the true class':>20}"]
    for pair in shown:
        words = f"{pair.true:<{first}} taken for {pair.predicted}"
        lines.append(f"{words:<{width}}{pair.images:>9,}{percent(pair.share):>20}")
    return "\n".join(lines)


def overall(metrics: Metrics) -> str:
    """The numbers over all classes for a terminal, one a line."""
    numbers = (
        ("accuracy", f"{percent(metrics.accuracy)} of {metrics.rows:,} images"),
        ("mean per-class accuracy", percent(metrics.mean_class_accuracy)),
        ("top-2 accuracy", percent(metrics.top2_accuracy)),
        ("loss", f"{metrics.loss:.4f} (mean cross-entropy, in nats)"),
    )
    return "\n".join(f"{name:<25}{value}" for name, value in numbers)


def percent(fraction: float | None) -> str:
    """A fraction as per cent with one decimal; "-" for None."""
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def _percents(scores: Scores) -> str:
    return f"{percent(scores.accuracy):>10}{percent(scores.precision):>11}{percent(scores.f1):>9}"
