"""Text tables of a comparison of models."""

from __future__ import annotations

from fer_pipeline.metrics.bootstrap import Interval
from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.comparison import Comparison
from fer_pipeline.text import format_table

_MIN_P_VALUE = 1e-99
"""Smallest p-value that is printed; smaller ones are printed as "<1e-99"."""


def format_cost_table(comparison: Comparison) -> str:
    """Return a text table of the models' parameters, multiply-adds and speeds.

    Notes below the table explain how these were measured.
    """
    rows = [
        [
            model.name,
            model.network,
            f"{model.size}x{model.size}",
            model.precision,
            f"{model.cost.parameters:,}",
            "?" if model.cost.multiply_adds is None else f"{model.cost.multiply_adds:,}",
            f"{model.cost.images_per_second:,.0f}",
            f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.4f}",
        ]
        for model, ratio in zip(comparison.models, comparison.speed_ratios, strict=True)
    ]
    header = [
        "model",
        "network",
        "pixels",
        "precision",
        "parameters",
        "multiply-adds",
        "images/s",
        "ratio",
    ]
    table = format_table(rows, header, ["left"] * 4 + ["right"] * 4)
    return "\n".join([table, *_format_cost_notes(comparison)])


def _format_cost_notes(comparison: Comparison) -> list[str]:
    """Return the lines that explain the columns of the cost table.

    If multiply-adds of some layers of a model are not counted, an additional line lists the layers.
    """
    settings = comparison.settings
    notes = [
        "(multiply-adds: per image, convolution and dense layers only; images/s: forward passes",
        f" in batches of {settings.batch_size:,}, cores: {settings.cores}; ratio: relative to the"
        " first model)",
    ]
    if settings.flip_tta:
        notes.append("(flip TTA needs two forward passes per image; these costs are for one pass)")
    for model in comparison.models:
        if model.cost.uncounted_layers:
            layers = ", ".join(model.cost.uncounted_layers)
            notes.append(f"({model.name}: layers not counted: {layers})")
    return notes


def format_quality_table(comparison: Comparison) -> str:
    """Return a text table of the models' accuracies and calibration errors, with notes below it.

    If some images, but not all, have an exact copy in the train split, the table also has the
    accuracies on the images without such a copy, which it calls "new".
    """
    header = ["model", "accuracy, all", "mean per class, all"]
    if comparison.models[0].without_overlap:
        header += ["accuracy, new", "mean per class, new"]
    header.append("ECE")
    rows = [
        [
            model.name,
            *_format_accuracies(model.metrics),
            *(_format_accuracies(model.without_overlap) if model.without_overlap else []),
            f"{100 * model.metrics.calibration.error:.1f}",
        ]
        for model in comparison.models
    ]
    table = format_table(rows, header, ["left"] + ["right"] * (len(header) - 1))
    return "\n".join([table, *_format_quality_notes(comparison)])


def _format_quality_notes(comparison: Comparison) -> list[str]:
    """Return the lines that explain the columns of the quality table.

    They also state how many images have no exact copy in the train split, if that is known.
    """
    note = (
        "(in per cent, with 95 % intervals; ECE: expected calibration error, on all; all:"
        f" {comparison.image_count:,} images"
    )
    without_overlap = comparison.models[0].without_overlap
    if without_overlap:
        return [
            f"{note};",
            f" new: the {without_overlap.image_count:,} images without an exact copy in the train"
            " split)",
        ]
    if comparison.overlap_count is None:
        return [f"{note})"]
    subject = "all images have" if comparison.overlap_count else "no image has"
    return [f"{note};", f" {subject} an exact copy in the train split)"]


def _format_accuracies(metrics: Metrics) -> list[str]:
    """Return the accuracy and the mean per-class accuracy, each with its confidence interval."""
    return [
        _format_accuracy_with_interval(metrics.accuracy, metrics.intervals.accuracy),
        _format_accuracy_with_interval(
            metrics.mean_class_accuracy, metrics.intervals.mean_class_accuracy
        ),
    ]


def _format_accuracy_with_interval(accuracy: float, interval: Interval) -> str:
    """Return an accuracy and its confidence interval in per cent, such as "71.2 [69.9..72.4]"."""
    return f"{100 * accuracy:.1f} [{100 * interval.low:.1f}..{100 * interval.high:.1f}]"


def format_pairwise_table(comparison: Comparison) -> str:
    """Return a text table of the significance tests, with one row for each pair of models.

    Notes below the table explain its columns.
    """
    rows = [
        [
            comparison.models[pair.first].name,
            comparison.models[pair.second].name,
            f"{100 * comparison.compute_accuracy_difference(pair):+.1f}",
            f"{pair.only_first:,}",
            f"{pair.only_second:,}",
            _format_p_value(pair.p_value),
            _format_p_value(pair.adjusted_p_value),
            "significant" if pair.is_significant else "not significant",
        ]
        for pair in comparison.pairs
    ]
    header = ["first", "second", "points", "only first", "only second", "p", "Holm", "at 5 %"]
    table = format_table(rows, header, ["left"] * 2 + ["right"] * 5 + ["left"])
    notes = [
        "(points: accuracy of the first minus the second model; only: images that only this model",
        " classifies correctly; p: McNemar's exact test, two-sided; Holm: p corrected for all"
        " pairs,",
        " which decides)",
    ]
    return "\n".join([table, *notes])


def _format_p_value(p_value: float) -> str:
    """Return a p-value with two significant digits, or "<1e-99" if it is below `_MIN_P_VALUE`."""
    return f"{p_value:.2g}" if p_value >= _MIN_P_VALUE else f"<{_MIN_P_VALUE:.0g}"
