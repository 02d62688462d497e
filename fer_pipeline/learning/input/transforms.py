"""What the batches of a training run are changed by, put together from the configuration."""

from __future__ import annotations

from fer_pipeline.config.training import TrainingConfig
from fer_pipeline.learning.input.augmentation import make_augment_fn, make_mixup_fn
from fer_pipeline.learning.input.batch_loader import Transform
from fer_pipeline.learning.training.losses import one_hot_targets
from fer_pipeline.learning.types import Tensor


def make_train_transform(chosen: TrainingConfig, size: int, classes: int) -> Transform | None:
    """The augmentation of each image, then the mixing of pairs.

    Args:
        chosen: What is asked for.
        size: The side of the images, in pixels.
        classes: How many there are.

    Returns:
        None where nothing is asked for.
    """
    augment = make_augment_fn(chosen.augmentation, size)
    mix = make_mixup_fn(chosen.mixup_alpha) if chosen.mixup_alpha else None
    if augment is None and mix is None:
        return None

    def change(images: Tensor, labels: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        if augment:
            images = augment(images, seed)
        if mix:
            images, labels = mix(images, one_hot_targets(labels, classes), seed)
        return images, labels

    return change
