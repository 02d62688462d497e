"""The transform of the training batches: augmentation and mixup, as configured."""

from __future__ import annotations

from fer_pipeline.config.training import TrainingConfig
from fer_pipeline.learning.input.augmentation import make_augment_fn
from fer_pipeline.learning.input.batch_loader import Transform
from fer_pipeline.learning.input.mixup import make_mixup_fn
from fer_pipeline.learning.input.targets import one_hot_encode
from fer_pipeline.learning.types import Tensor


def make_train_transform(config: TrainingConfig, size: int, class_count: int) -> Transform | None:
    """Return a function that augments the images of a batch and then applies mixup, as configured.

    Mixup turns integer labels into distributions over the classes; without mixup the labels do not
    change.

    Args:
        config: The section `training` of the configuration.
        size: Height and width of the images, in pixels.
        class_count: Number of classes.

    Returns:
        A function `(images, labels, seed) -> (images, labels)`, or None if augmentation and mixup
        are both off. Images: float32 of shape (n, size, size, 1), pixel values in [0, 255]. Labels:
        int32 of shape (n,), or distributions, float32 of shape (n, classes). Seed: int64 of shape
        (2,).
    """
    augment = make_augment_fn(config.augmentation, size)
    mix = make_mixup_fn(config.mixup_alpha) if config.mixup_alpha else None
    if augment is None and mix is None:
        return None

    def transform(images: Tensor, labels: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        """Augment the images of a batch and then apply mixup; omit what is off."""
        if augment:
            images = augment(images, seed)
        if mix:
            images, labels = mix(images, one_hot_encode(labels, class_count), seed)
        return images, labels

    return transform
