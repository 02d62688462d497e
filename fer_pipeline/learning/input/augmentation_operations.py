"""The operations of the augmentation; `augmentation` applies them."""

from __future__ import annotations

from fer_pipeline.config.training import AugmentationConfig

GEOMETRIC = ("flip", "rotation", "shift", "zoom", "shear")
"""Operations that move pixels; a single resampling applies all of them together."""

OPERATIONS = (*GEOMETRIC, "contrast", "brightness", "random_erasing")
"""All operations, in the order in which they are applied. Each one is a configuration key in the
section `training.augmentation`."""


def list_enabled_operations(config: AugmentationConfig) -> list[str]:
    """Return the names of the enabled operations, such as `flip`, in the order of `OPERATIONS`."""
    return [name for name in OPERATIONS if getattr(config, name)]
