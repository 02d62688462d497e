"""Numbers that follow from the configuration and the dataset of a run, and checks of both.

They need no TensorFlow, so that a mistake is reported before it is imported.
"""

from __future__ import annotations

from collections.abc import Mapping

from fer_pipeline.config import Config
from fer_pipeline.config.training import ScheduleConfig, TrainingConfig
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError
from fer_pipeline.learning.networks import registry
from fer_pipeline.learning.training import teachers


def require_trainable(config: Config, dataset: StoredDataset) -> None:
    """Check that a network can be trained on a dataset, as far as that is possible in advance.

    Args:
        config: Configuration, completed with the settings of the dataset.
        dataset: Dataset to train on.

    Raises:
        DatasetError: The dataset has no training rows, or a file is missing or damaged.
        ConfigError: The network or an option of it does not exist, or a setting does not fit the
            dataset or the number of steps.
        RunError: A teacher is not a finished run.
    """
    training = config.training
    dataset.require_split(Split.TRAIN)
    if dataset.row_count(Split.VALIDATION):
        dataset.require_split(Split.VALIDATION)
    else:
        reject_settings_needing_validation(training)
    registry.require_network(config.model.name, dataset.image_size, config.model.options)
    compute_class_weights(training.class_weights, dataset.manifest.counts[Split.TRAIN])
    steps_per_epoch = -(-dataset.row_count(Split.TRAIN) // config.loader.batch_size)
    count_warmup_steps(training.schedule, count_steps(training, steps_per_epoch), steps_per_epoch)
    teachers.open_teachers(training.distillation, dataset)


def count_steps(config: TrainingConfig, steps_per_epoch: int) -> int:
    """Return the number of steps of a restart."""
    return config.steps or (config.epochs or 1) * steps_per_epoch


def count_warmup_steps(schedule: ScheduleConfig, steps: int, steps_per_epoch: int) -> int:
    """Return the number of steps of the warm-up.

    Args:
        schedule: The section `training.schedule` of the configuration.
        steps: Number of steps of the run.
        steps_per_epoch: Number of steps in one epoch.

    Raises:
        ConfigError: The warm-up is not shorter than the run.
    """
    warmup_steps = round(schedule.warmup_epochs * steps_per_epoch)
    if warmup_steps >= steps:
        raise ConfigError(
            f"training.schedule.warmup_epochs: {schedule.warmup_epochs:g} epochs are {warmup_steps}"
            f" steps, but the run has only {steps}; reduce it"
        )
    return warmup_steps


def reject_settings_needing_validation(config: TrainingConfig) -> None:
    """Raise an error if a configured setting needs a validation split.

    Call this function only for a dataset without a validation split.

    Raises:
        ConfigError: A monitored metric is measured on the validation split, or there are several
            restarts, whose best weights are selected on this split.
    """
    schedule = config.schedule
    monitored_metrics = {
        "training.early_stopping.monitor": config.early_stopping.monitor or "",
        "training.schedule.monitor": schedule.monitor if schedule.kind == "plateau" else "",
    }
    for key, metric in monitored_metrics.items():
        if metric.startswith("val_"):
            raise ConfigError(
                f"{key}: {metric} needs a validation split, and the dataset has none; make one with"
                " split.validation"
            )
    if config.restarts > 1:
        raise ConfigError(
            "training.restarts: selecting the best of several needs a validation split, and the"
            " dataset has none; make one with split.validation"
        )


def compute_class_weights(
    setting: str | Mapping[str, float] | None, counts: Mapping[str, int]
) -> list[float] | None:
    """Return the weight of each class, in the order of the classes.

    Args:
        setting: `balanced`, or weights by class name; a class without an entry has weight 1. None
            for no weights.
        counts: Number of training rows by class name, in the order of the classes.

    Returns:
        The weights, or None for no weights. For `balanced`, a weight is rows / (classes * rows of
        the class), as in scikit-learn; a class without rows has weight 0.

    Raises:
        ConfigError: A name is not a class of the dataset.
    """
    if setting is None:
        return None
    if isinstance(setting, str):
        mean_count = sum(counts.values()) / len(counts)
        return [mean_count / count if count else 0.0 for count in counts.values()]
    unknown_names = [name for name in setting if name not in counts]
    if unknown_names:
        raise ConfigError(
            f"training.class_weights: {', '.join(unknown_names)} is no class of the dataset; it has"
            f" {', '.join(counts)}"
        )
    return [float(setting.get(name, 1.0)) for name in counts]
