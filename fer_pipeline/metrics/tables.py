"""Text tables of an evaluation's metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fer_pipeline.metrics.bootstrap import CONFIDENCE_LEVEL, Interval
from fer_pipeline.metrics.classification import ClassScores, Metrics
from fer_pipeline.metrics.train_test_overlap import OverlapReport
from fer_pipeline.text import format_table

_INTERVAL_HEADER = f"{100 * CONFIDENCE_LEVEL:g} % interval"


def format_class_table(metrics: Metrics) -> str:
    """Return a text table of the counts and scores of each class, with averages and totals below.

    Each accuracy has a confidence interval. In the row "macro average", the accuracy is the mean of
    the per-class accuracies. In the row "weighted average", it is the overall accuracy.
    """
    intervals = metrics.intervals
    rows = [
        _format_class_row(
            class_metrics.name,
            [class_metrics.actual, class_metrics.predicted, class_metrics.true_positives],
            class_metrics.scores,
            interval,
        )
        for class_metrics, interval in zip(metrics.classes, intervals.classes, strict=True)
    ]
    rows.append(
        _format_class_row("macro average", [], metrics.macro, intervals.mean_class_accuracy)
    )
    rows.append(_format_class_row("weighted average", [], metrics.weighted, intervals.accuracy))
    image_count = f"{metrics.image_count:,}"
    rows.append(
        [
            "all",
            image_count,
            image_count,
            f"{metrics.correct_count:,}",
            format_percent(metrics.accuracy),
            format_interval(intervals.accuracy),
            "",
            "",
        ]
    )
    header = [
        "",
        "actual",
        "predicted",
        "true positives",
        "accuracy",
        _INTERVAL_HEADER,
        "precision",
        "F1",
    ]
    table = format_table(rows, header, ["left"] + ["right"] * 7)
    note = "(actual: the support; accuracy of a class: its recall; -: it has no image)"
    return f"{table}\n{note}"


def _format_class_row(
    name: str, counts: Sequence[int], scores: ClassScores, interval: Interval | None
) -> list[str]:
    """Return one row of the class table, for a class or for an average over the classes.

    Args:
        name: Name of the class or of the average.
        counts: Number of images of the class, number of images predicted as the class, and number
            of true positives; empty for an average, whose three cells are left blank.
        scores: Scores of the class, or averages of the scores of all classes.
        interval: Confidence interval of the accuracy; None if the class has no images.
    """
    return [
        name,
        *([f"{count:,}" for count in counts] or ["", "", ""]),
        format_percent(scores.accuracy),
        format_interval(interval),
        format_percent(scores.precision),
        format_percent(scores.f1),
    ]


def format_confusion_table(metrics: Metrics) -> str:
    """Return the confusion matrix as a text table of image counts.

    Rows are true classes and columns are predicted classes. The first line says so.
    """
    names = [class_metrics.name for class_metrics in metrics.classes]
    rows = [
        [name, *(f"{count:,}" for count in counts)]
        for name, counts in zip(names, metrics.confusion, strict=True)
    ]
    table = format_table(rows, ["", *names], ["left"] + ["right"] * len(names))
    return f"images; rows: true class, columns: predicted class\n{table}"


def format_confused_pairs(metrics: Metrics, max_pairs: int = 5) -> str:
    """Return a text table of the most confused pairs of classes.

    Each row contains a true class, a class wrongly predicted for it, and the number and fraction of
    the true class's images with this prediction. The largest fraction comes first. If no image is
    wrongly classified, the text is a single line that says so.

    Args:
        metrics: Metrics of the evaluation.
        max_pairs: Maximum number of rows.
    """
    pairs = metrics.confused_pairs[:max_pairs]
    if not pairs:
        return "nothing is confused"
    width = max(len(pair.true) for pair in pairs)
    rows = [
        [
            f"{pair.true:<{width}} taken for {pair.predicted}",
            f"{pair.image_count:,}",
            format_percent(pair.share),
        ]
        for pair in pairs
    ]
    header = ["most confused", "images", "of the true class"]
    return format_table(rows, header, ["left", "right", "right"])


def format_overall_metrics(metrics: Metrics) -> str:
    """Return a text table of the metrics over all classes, with one metric per line.

    The accuracy and the mean per-class accuracy have confidence intervals.
    """
    intervals, calibration = metrics.intervals, metrics.calibration
    lines = (
        (
            "accuracy",
            f"{format_percent(metrics.accuracy)} of {metrics.image_count:,} images"
            f" ({_INTERVAL_HEADER} {format_interval(intervals.accuracy)})",
        ),
        (
            "mean per-class accuracy",
            f"{format_percent(metrics.mean_class_accuracy)}"
            f" ({_INTERVAL_HEADER} {format_interval(intervals.mean_class_accuracy)})",
        ),
        ("top-2 accuracy", format_percent(metrics.top2_accuracy)),
        ("loss", f"{metrics.loss:.4f} (mean cross-entropy, in nats)"),
        (
            "calibration error",
            f"{format_percent(calibration.error)} (expected, {len(calibration.bins)} bins;"
            f" mean confidence {format_percent(calibration.confidence)})",
        ),
    )
    return format_table(lines, None, ["left", "left"])


def format_coverage_table(metrics: Metrics) -> str:
    """Return a text table of the accuracy at several coverages.

    The coverage is the fraction of the images that remain if images below a confidence threshold
    are rejected. The printed thresholds are rounded down, because a threshold that is rounded up
    would reject some of these images.
    """
    rows = [
        [
            format_percent(point.coverage),
            f"{point.image_count:,}",
            f"{math.floor(point.min_confidence * 10_000) / 10_000:.4f}",
            format_percent(point.accuracy),
        ]
        for point in metrics.coverage
    ]
    header = ["coverage", "images", "least confidence", "accuracy"]
    return format_table(rows, header, ["right"] * len(header))


def format_overlap_table(overlap: OverlapReport) -> str:
    """Return a text table of the accuracies with and without exact copies of training images.

    If no evaluated image has an exact copy in the train split, the text is a single line that says
    so; the line names `split.deduplicate` if the dataset was created with this setting. If all
    images have a copy, the row without copies has no accuracies.

    Args:
        overlap: Metrics of all images, and of the images without an exact copy in the train split.
    """
    if not overlap.overlap_count:
        reason = " (split.deduplicate)" if overlap.deduplicated else ""
        return f"no image has an exact copy in the train split{reason}"
    rows = [
        ["all images", *_format_accuracy_cells(overlap.all_images)],
        [f"without {overlap.overlap_count:,}", *_format_accuracy_cells(overlap.without_overlap)],
    ]
    header = [
        "exact copies in training",
        "images",
        "accuracy",
        _INTERVAL_HEADER,
        "mean per class",
        _INTERVAL_HEADER,
    ]
    return format_table(rows, header, ["left"] + ["right"] * 5)


def _format_accuracy_cells(metrics: Metrics | None) -> list[str]:
    """Return five table cells: the number of images and two accuracies with confidence intervals.

    The accuracies are the overall accuracy and the mean of the per-class accuracies.

    Args:
        metrics: Metrics of the images; None if there are no images.
    """
    if metrics is None:
        return ["0", "-", "-", "-", "-"]
    return [
        f"{metrics.image_count:,}",
        format_percent(metrics.accuracy),
        format_interval(metrics.intervals.accuracy),
        format_percent(metrics.mean_class_accuracy),
        format_interval(metrics.intervals.mean_class_accuracy),
    ]


def format_accuracy(metrics: Metrics) -> str:
    """Return one line of text: overall accuracy, number of images and mean per-class accuracy."""
    return (
        f"accuracy {format_percent(metrics.accuracy)} of {metrics.image_count:,} images,"
        f" mean per class {format_percent(metrics.mean_class_accuracy)}"
    )


def format_percent(fraction: float | None) -> str:
    """Return a fraction as a percentage with one decimal, such as "71.2 %", or "-" for None."""
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def format_interval(interval: Interval | None) -> str:
    """Return a confidence interval as percentages, such as "69.9..72.4 %", or "-" for None."""
    return "-" if interval is None else f"{100 * interval.low:.1f}..{100 * interval.high:.1f} %"
