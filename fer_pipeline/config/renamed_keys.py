"""Configuration keys of earlier versions: each is refused with a message that gives the new key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

RENAMED_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "input.max_bad_fraction": "input.max_quarantined_fraction",
        "labels.form": "labels.target",
        "split.kind": "split.method",
        "split.usage": "split.usage_to_split",
        "balance": "sampling.balance",
        "oversample": "sampling.oversample",
        "augmentation.flip": "variants.flip",
        "augmentation.rotations": "variants.rotations",
        "augmentation.border": "variants.border",
        "augmentation": "variants",
        "output.partitions": "output.files_per_split",
        "feed.batch_size": "loader.batch_size",
        "feed.shuffle_buffer": "loader.shuffle_buffer",
        "feed.deterministic": "loader.deterministic",
        "feed.cache": "loader.cache_in_memory",
        "feed": "loader",
        "training.validate_every": "training.validate_every_steps",
        "training.checkpoint_every": "training.checkpoint_every_steps",
        "training.trials": "training.restarts",
        "training.best": "training.select_best_by",
        "training.mixup": "training.mixup_alpha",
        "training.average": "training.ema_decay",
        "training.optimizer.clip_norm": "training.optimizer.global_clipnorm",
        "training.schedule.final": "training.schedule.min_learning_rate",
        "training.schedule.minimum": "training.schedule.min_learning_rate",
        "training.augmentation.erasing": "training.augmentation.random_erasing",
        "tracking.mlflow": "tracking.mlflow.enabled",
        "tracking.uri": "tracking.mlflow.uri",
        "tracking.experiment": "tracking.mlflow.experiment",
        "inference.flip": "inference.flip_tta",
        "inference.runtime": "inference.backend",
    }
)
"""New dotted key by old dotted key. An old section comes after the keys that it contains."""

RENAMED_VALUES: Mapping[str, Mapping[Any, Any]] = MappingProxyType(
    {
        "labels.form": {"majority": "hard", "distribution": "soft"},
        "feed.cache": {"none": False, "memory": True},
    }
)
"""New value by old value, for each old dotted key that has renamed values."""

_MISSING = object()


def pop_renamed_keys(tree: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Remove renamed keys from nested mappings, and yield each key with its value.

    Each key is removed only when the iterator reaches it. A renamed section, such as `feed`, is
    removed after the keys in it; it is not yielded if these were its whole content.

    Args:
        tree: Nested mappings, as read from a YAML file. They are changed in place.

    Yields:
        Each old dotted key with its value, in the order of `RENAMED_KEYS`.
    """
    popped_sections: set[str] = set()
    for old_key, new_key in RENAMED_KEYS.items():
        *sections, key = old_key.split(".")
        branch: Any = tree
        for section in sections:
            branch = branch.get(section) if isinstance(branch, dict) else None
        old_value = branch.get(key, _MISSING) if isinstance(branch, dict) else _MISSING
        # Some old keys, such as `tracking.mlflow`, are now the names of sections.
        is_new_section = new_key.startswith(f"{old_key}.") and (
            old_value is None or isinstance(old_value, dict)
        )
        if old_value is _MISSING or is_new_section:
            continue
        del branch[key]
        if old_value != {} or old_key not in popped_sections:
            yield old_key, old_value
        popped_sections |= {".".join(sections[: depth + 1]) for depth in range(len(sections))}


def describe_renamed_key(old_key: str) -> str:
    """Return the message "OLD is now NEW" for a renamed key.

    If values of the key were renamed too, the message lists these in the same form.

    Args:
        old_key: Dotted key of an earlier version, one of `RENAMED_KEYS`.
    """
    message = f"{old_key} is now {RENAMED_KEYS[old_key]}"
    renamed_values = RENAMED_VALUES.get(old_key, {})
    pairs = [
        f"{old_value} is now {str(new_value).lower()}"
        for old_value, new_value in renamed_values.items()
    ]
    return f"{message} ({', '.join(pairs)})" if pairs else message
