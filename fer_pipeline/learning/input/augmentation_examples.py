"""Examples of augmented images: the columns of the augmentation preview."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fer_pipeline.config.training import AugmentationConfig, TrainingConfig
from fer_pipeline.learning.input.augmentation import (
    AugmentationSample,
    apply_augmentation,
    compute_max_erased_size,
    list_enabled_operations,
    make_augment_fn,
)
from fer_pipeline.learning.input.mixup import make_mixup_fn
from fer_pipeline.plots.augmentation_preview import ExampleColumn, ExampleGroup, Images

_MIN_SAMPLED_COLUMNS = 4
_MIN_SHOWN_SHARE = 0.005


@dataclass(frozen=True)
class _Extreme:
    """An end of an operation's range: its label, and the numbers of the sample that give it."""

    label: str
    sample: dict[str, float]


def make_single_operation_examples(
    images: Images, config: AugmentationConfig, seed: int
) -> list[ExampleGroup]:
    """Return examples of each enabled operation alone, at the ends of its range.

    Args:
        images: The original images.
        config: The operations and their ranges.
        seed: Seed of the positions of the erased squares.
    """
    size, rng = images.shape[1], np.random.default_rng(seed)
    groups = []
    for name in list_enabled_operations(config):
        single = AugmentationConfig.model_validate(
            {name: getattr(config, name), "border": config.border}
        )
        range_text, extremes = _describe_range(name, single, size)
        columns = [
            ExampleColumn(extreme.label, _augment_at(images, single, extreme.sample, rng))
            for extreme in extremes
        ]
        groups.append(ExampleGroup(name, range_text, tuple(columns)))
    return groups


def _describe_range(name: str, config: AugmentationConfig, size: int) -> tuple[str, list[_Extreme]]:
    """Return an operation's range in words, and the ends of the range."""
    limit = float(getattr(config, name))
    if name == "flip":
        return "every second", [_Extreme("mirrored", {"flip": 0})]
    if name == "shift":
        axes = ("shift_right", "shift_down")
        return f"±{100 * limit:.3g} % of the side", [
            _Extreme("left, up", dict.fromkeys(axes, 0.0)),
            _Extreme("right, down", dict.fromkeys(axes, 1.0)),
        ]
    if name == "random_erasing":
        side = compute_max_erased_size(limit, size)
        # Just below 1, which the random numbers never reach.
        largest = _Extreme(f"{side} px", {"erased_size": 1 - 2**-23})
        return f"a square of up to {side} px", [largest, largest]
    if name in ("zoom", "contrast"):
        low, high = f"×{1 - limit:.3g}", f"×{1 + limit:.3g}"  # noqa: RUF001
        return f"{low} to {high}", [_Extreme(low, {name: 0}), _Extreme(high, {name: 1})]
    range_unit = {"rotation": "°", "brightness": " of 255"}.get(name, "")
    limit_text = f"{255 * limit:.0f}" if name == "brightness" else f"{limit:.3g}"
    label_unit = "°" if name == "rotation" else ""
    low, high = f"\N{MINUS SIGN}{limit_text}{label_unit}", f"+{limit_text}{label_unit}"
    return f"±{limit_text}{range_unit}", [_Extreme(low, {name: 0}), _Extreme(high, {name: 1})]


def _augment_at(
    images: Images,
    config: AugmentationConfig,
    fixed_numbers: dict[str, float],
    rng: np.random.Generator,
) -> Images:
    """Return the images with some numbers of the sample fixed, and the others random."""
    numbers = {name: rng.random(len(images), np.float32) for name in AugmentationSample._fields}
    for name, number in fixed_numbers.items():
        numbers[name] = np.full(len(images), number, np.float32)
    sample = AugmentationSample(**{name: tf.constant(array) for name, array in numbers.items()})
    augmented = apply_augmentation(tf.constant(images[..., None]), sample, config, images.shape[1])
    return augmented.numpy()[..., 0]


def make_sampled_examples(
    images: Images,
    labels: npt.NDArray[np.int32],
    class_names: Sequence[str],
    config: TrainingConfig,
    seed: int,
    columns: int = 0,
) -> list[ExampleGroup]:
    """Return examples of all enabled operations together, sampled as in training.

    Args:
        images: The original images, which are one batch here.
        labels: Their classes, of shape (rows,).
        class_names: Names of the classes.
        config: The section `training`.
        seed: Seed of the samples.
        columns: Approximate number of columns to fill; each group has at least four.
    """
    pixels, targets = tf.constant(images[..., None]), tf.one_hot(labels, len(class_names))
    augment = make_augment_fn(config.augmentation, images.shape[1])
    group_count = bool(augment) + bool(config.mixup_alpha)
    column_count = max(_MIN_SAMPLED_COLUMNS, columns // max(1, group_count))
    seeds = [tf.constant((seed, number), tf.int64) for number in range(column_count)]
    batches = [augment(pixels, batch_seed) if augment else pixels for batch_seed in seeds]
    final_title, groups = "as training sees them", []
    if augment:
        title = "before mixup" if config.mixup_alpha else final_title
        augmented = tuple(ExampleColumn("", batch.numpy()[..., 0]) for batch in batches)
        groups.append(ExampleGroup(title, "all operations, sampled at random", augmented))
    if config.mixup_alpha:
        mix = make_mixup_fn(config.mixup_alpha)
        mixed = []
        for batch, batch_seed in zip(batches, seeds, strict=True):
            mixed_images, shares = mix(batch, targets, batch_seed)
            captions = tuple(_format_shares(row, class_names) for row in shares.numpy())
            mixed.append(ExampleColumn("", mixed_images.numpy()[..., 0], captions))
        groups.append(
            ExampleGroup(final_title, f"with mixup, alpha {config.mixup_alpha:.3g}", tuple(mixed))
        )
    return groups


def _format_shares(shares: npt.NDArray[np.float32], class_names: Sequence[str]) -> str:
    """Return a mixed target in words, the larger share first."""
    largest = np.argsort(-shares)[:2]
    return "\n".join(
        f"{100 * shares[k]:.0f} % {class_names[k]}"
        for k in largest
        if shares[k] >= _MIN_SHOWN_SHARE
    )
