"""What the batches of a training run are changed by, put together from the configuration."""

from __future__ import annotations

from typing import Any

from fer_pipeline.config.training import TrainingConfig
from fer_pipeline.learning.data.augmentation import augmenter, mixup
from fer_pipeline.learning.data.feed import Transform
from fer_pipeline.learning.training.objective import targets

Tensor = Any


def transform(chosen: TrainingConfig, size: int, classes: int) -> Transform | None:
    """The augmentation of each image, then the mixing of pairs.

    Args:
        chosen: What is asked for.
        size: The side of the images, in pixels.
        classes: How many there are.

    Returns:
        None where nothing is asked for.
    """
    augment = augmenter(chosen.augmentation, size)
    mix = mixup(chosen.mixup_alpha) if chosen.mixup_alpha else None
    if augment is None and mix is None:
        return None

    def change(images: Tensor, labels: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        if augment:
            images = augment(images, seed)
        if mix:
            images, labels = mix(images, targets(labels, classes), seed)
        return images, labels

    return change
