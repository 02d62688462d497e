"""Configuration keys of earlier versions, which are refused with their new names."""

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
"""Old dotted key to new dotted key. A section comes after its keys."""

RENAMED_VALUES: Mapping[str, Mapping[Any, Any]] = MappingProxyType(
    {
        "labels.form": {"majority": "hard", "distribution": "soft"},
        "feed.cache": {"none": False, "memory": True},
    }
)
"""Old values to new values of an old key."""

_MISSING = object()


def pop_renamed_keys(tree: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Remove the keys of earlier versions from a configuration's tree.

    An old section is removed key by key. It is reported itself only if it holds none of its old
    keys, or other ones too.

    Args:
        tree: Nested mappings, as YAML has them; they are changed.

    Yields:
        Each old dotted key with its value, in the order of `RENAMED_KEYS`.
    """
    popped: set[str] = set()
    for old, new in RENAMED_KEYS.items():
        *sections, key = old.split(".")
        branch: Any = tree
        for section in sections:
            branch = branch.get(section) if isinstance(branch, dict) else None
        old_value = branch.get(key, _MISSING) if isinstance(branch, dict) else _MISSING
        # An old key whose name a section has now, such as `tracking.mlflow`.
        is_new_section = new.startswith(f"{old}.") and (
            old_value is None or isinstance(old_value, dict)
        )
        if old_value is _MISSING or is_new_section:
            continue
        del branch[key]
        if old_value != {} or old not in popped:
            yield old, old_value
        popped |= {".".join(sections[: depth + 1]) for depth in range(len(sections))}


def describe_renamed_key(old: str) -> str:
    """Return a sentence that names the new key of an old one.

    Args:
        old: An old dotted key, one of `RENAMED_KEYS`.
    """
    sentence = f"{old} is now {RENAMED_KEYS[old]}"
    values = RENAMED_VALUES.get(old, {})
    pairs = [f"{before} is now {str(after).lower()}" for before, after in values.items()]
    return f"{sentence} ({', '.join(pairs)})" if pairs else sentence
