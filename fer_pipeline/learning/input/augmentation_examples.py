"""Examples of augmented images, which are the columns of the augmentation preview."""

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
    make_augment_fn,
)
from fer_pipeline.learning.input.augmentation_operations import list_enabled_operations
from fer_pipeline.learning.input.mixup import make_mixup_fn
from fer_pipeline.plots.augmentation_preview import ExampleColumn, ExampleGroup, Images

_MIN_SAMPLED_COLUMNS = 4

_MIN_CAPTION_WEIGHT = 0.005
"""Classes with a smaller weight in a mixed target are left out of its caption."""


@dataclass(frozen=True)
class _RangeEnd:
    """One end of an operation's range.

    Attributes:
        label: Text above the column of examples.
        fixed_numbers: Random numbers that select this end, by field of `AugmentationSample`; 0 and
            1 are the ends of a range.
    """

    label: str
    fixed_numbers: dict[str, float]


def make_single_operation_examples(
    images: Images, config: AugmentationConfig, seed: int
) -> list[ExampleGroup]:
    """Apply each enabled augmentation operation on its own, at both ends of its parameter range.

    For `flip` there is only one column, with the mirrored images. For random erasing, both columns
    show the largest square, at different random positions.

    Args:
        images: Original images, float32 of shape (n, size, size), pixel values in [0, 255].
        config: The section `training.augmentation` of the configuration: the enabled operations
            and their ranges.
        seed: Seed of the random positions of the squares that random erasing fills.

    Returns:
        One group of columns for each enabled operation. A column contains all images, changed by
        the operation at one end of its range.
    """
    size, rng = images.shape[1], np.random.default_rng(seed)
    groups = []
    for name in list_enabled_operations(config):
        single_config = AugmentationConfig.model_validate(
            {name: getattr(config, name), "border": config.border}
        )
        range_text, range_ends = _describe_range(name, single_config, size)
        columns = [
            ExampleColumn(
                end.label,
                _augment_with_fixed_numbers(images, single_config, end.fixed_numbers, rng),
            )
            for end in range_ends
        ]
        groups.append(ExampleGroup(name, range_text, tuple(columns)))
    return groups


def _describe_range(
    name: str, config: AugmentationConfig, size: int
) -> tuple[str, list[_RangeEnd]]:
    """Return the range of an augmentation operation as text, and the ends of this range.

    Args:
        name: Name of the operation, such as `rotation`.
        config: Configuration that contains the range.
        size: Height and width of the images, in pixels.

    Returns:
        The range as text, such as "±15°", and one `_RangeEnd` for each column of examples. `flip`
        has only one column. Both columns of random erasing show the upper end of its range.
    """
    limit = float(getattr(config, name))
    if name == "flip":
        return "every second", [_RangeEnd("mirrored", {"flip": 0})]
    if name == "shift":
        axes = ("shift_right", "shift_down")
        return f"±{100 * limit:.3g} % of the side", [
            _RangeEnd("left, up", dict.fromkeys(axes, 0.0)),
            _RangeEnd("right, down", dict.fromkeys(axes, 1.0)),
        ]
    if name == "random_erasing":
        # Both columns show the largest square, at different random positions.
        max_size = compute_max_erased_size(limit, size)
        # The largest float32 number below 1, because the random numbers never reach 1.
        largest = _RangeEnd(f"{max_size} px", {"erased_size": 1 - 2**-23})
        return f"a square of up to {max_size} px", [largest, largest]
    if name in ("zoom", "contrast"):
        low, high = f"×{1 - limit:.3g}", f"×{1 + limit:.3g}"  # noqa: RUF001
        return f"{low} to {high}", [_RangeEnd(low, {name: 0}), _RangeEnd(high, {name: 1})]
    range_unit = {"rotation": "°", "brightness": " of 255"}.get(name, "")
    limit_text = f"{255 * limit:.0f}" if name == "brightness" else f"{limit:.3g}"
    label_unit = "°" if name == "rotation" else ""
    low, high = f"\N{MINUS SIGN}{limit_text}{label_unit}", f"+{limit_text}{label_unit}"
    return f"±{limit_text}{range_unit}", [_RangeEnd(low, {name: 0}), _RangeEnd(high, {name: 1})]


def _augment_with_fixed_numbers(
    images: Images,
    config: AugmentationConfig,
    fixed_numbers: dict[str, float],
    rng: np.random.Generator,
) -> Images:
    """Augment images with some fixed numbers in place of random numbers.

    Args:
        images: Original images, float32 of shape (n, size, size), pixel values in [0, 255].
        config: Enabled operations and their ranges.
        fixed_numbers: Number for all images, by field of `AugmentationSample`; 0 and 1 are the ends
            of an operation's range.
        rng: Generator of random numbers for all other fields.
    """
    numbers = {name: rng.random(len(images), np.float32) for name in AugmentationSample._fields}
    for name, number in fixed_numbers.items():
        numbers[name] = np.full(len(images), number, np.float32)
    sample = AugmentationSample(**{name: tf.constant(array) for name, array in numbers.items()})
    augmented = apply_augmentation(tf.constant(images[..., None]), sample, config, images.shape[1])
    return augmented.numpy()[..., 0]


def make_random_examples(
    images: Images,
    labels: npt.NDArray[np.int32],
    class_names: Sequence[str],
    config: TrainingConfig,
    seed: int,
    preferred_column_count: int = 0,
) -> list[ExampleGroup]:
    """Augment example images randomly with all enabled operations and mixup, as in training.

    Each column contains all images. The random numbers differ between the columns of a group.

    Args:
        images: Original images, float32 of shape (n, size, size), pixel values in [0, 255]. Mixup
            blends these images with each other, as one batch.
        labels: Class indices of the images, of shape (n,).
        class_names: Names of the classes.
        config: The section `training` of the configuration.
        seed: Seed of the random numbers.
        preferred_column_count: Approximate number of columns of all groups together; each group
            has at least four columns.

    Returns:
        Up to two groups of columns: the augmented images, if an operation is enabled, and the
        images after augmentation and mixup, if mixup is enabled.
    """
    pixels, targets = tf.constant(images[..., None]), tf.one_hot(labels, len(class_names))
    augment = make_augment_fn(config.augmentation, images.shape[1])
    group_count = bool(augment) + bool(config.mixup_alpha)
    column_count = max(_MIN_SAMPLED_COLUMNS, preferred_column_count // max(1, group_count))
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
            mixed_images, mixed_targets = mix(batch, targets, batch_seed)
            captions = tuple(_format_target(row, class_names) for row in mixed_targets.numpy())
            mixed.append(ExampleColumn("", mixed_images.numpy()[..., 0], captions))
        groups.append(
            ExampleGroup(final_title, f"with mixup, alpha {config.mixup_alpha:.3g}", tuple(mixed))
        )
    return groups


def _format_target(target: npt.NDArray[np.float32], class_names: Sequence[str]) -> str:
    """Return the caption of a mixup image: the two classes with the largest weights.

    Each line contains the weight in percent and the name of the class. A class with a weight of
    less than 0.5 % is left out.

    Args:
        target: Target of the image: the weight of each class, of shape (classes,).
        class_names: Names of the classes.
    """
    largest = np.argsort(-target)[:2]
    return "\n".join(
        f"{100 * target[k]:.0f} % {class_names[k]}"
        for k in largest
        if target[k] >= _MIN_CAPTION_WEIGHT
    )
