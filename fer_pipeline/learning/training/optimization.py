"""From the configuration to Keras's optimizers, schedules and callbacks."""

from __future__ import annotations

import keras

from fer_pipeline.config.training import OptimizerConfig, ScheduleConfig, TrainingConfig
from fer_pipeline.errors import ConfigError


def make_optimizer(
    chosen: OptimizerConfig, schedule: ScheduleConfig, steps: int, steps_per_epoch: int
) -> keras.optimizers.Optimizer:
    """Makes the optimizer; `build` gives it its variables.

    Args:
        chosen: Which one.
        schedule: How its rate changes.
        steps: Batches in all.
        steps_per_epoch: Batches of one pass over the training split.

    Raises:
        ConfigError: The warm-up does not end.
    """
    rate = _rate(chosen.learning_rate, schedule, steps, steps_per_epoch)
    shared = {
        "weight_decay": chosen.weight_decay or None,
        "global_clipnorm": chosen.global_clipnorm,
    }
    match chosen.name:
        case "sgd":
            return keras.optimizers.SGD(
                rate, momentum=chosen.momentum, nesterov=chosen.nesterov, **shared
            )
        case "rmsprop":
            return keras.optimizers.RMSprop(rate, momentum=chosen.momentum, **shared)
        case "adam":
            return keras.optimizers.Adam(rate, **shared)
        case "adamw":
            return keras.optimizers.AdamW(rate, **shared)


def _rate(
    height: float, schedule: ScheduleConfig, steps: int, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if warmup >= steps:
        raise ConfigError(
            f"training.schedule.warmup_epochs: {schedule.warmup_epochs:g} epochs are {warmup}"
            f" steps, and the run has {steps}; shorten it"
        )
    if schedule.kind != "cosine" and not warmup:
        return height
    # A cosine that ends where it began is constant.
    end = schedule.min_learning_rate / height if schedule.kind == "cosine" else 1.0
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else height,
        decay_steps=steps - warmup,
        alpha=end,
        warmup_target=height if warmup else None,
        warmup_steps=warmup,
    )


def build(
    optimizer: keras.optimizers.Optimizer, network: keras.Model, *, summed: bool = False
) -> None:
    """Gives the optimizer its variables; only kernels decay.

    Biases and BatchNormalization's scales and offsets are one number for each channel: to shrink
    them changes what the network says and does not regularise it (He et al. 2019, section 3.1).

    Args:
        optimizer: Not yet built.
        network: What it is to train.
        summed: Whether the gradients that it gets are those of all workers, so that it must not sum
            them, as Keras's optimizers do.
    """
    optimizer.exclude_from_weight_decay(
        [variable for variable in network.trainable_variables if len(variable.shape) < 2]
    )
    if summed:
        optimizer._all_reduce_sum_gradients = list
    optimizer.build(network.trainable_variables)


def watchers(chosen: TrainingConfig) -> list[keras.callbacks.Callback]:
    """Keras's callbacks that act on what validation finds."""
    found: list[keras.callbacks.Callback] = []
    schedule, stopping = chosen.schedule, chosen.early_stopping
    if schedule.kind == "plateau":
        found.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor=schedule.monitor,
                mode=better(schedule.monitor),
                factor=schedule.factor,
                patience=schedule.patience,
                min_delta=schedule.min_delta,
                min_lr=schedule.min_learning_rate,
            )
        )
    if stopping.monitor:
        found.append(
            keras.callbacks.EarlyStopping(
                monitor=stopping.monitor,
                mode=better(stopping.monitor),
                patience=stopping.patience,
                min_delta=stopping.min_delta,
            )
        )
    return found


def better(metric: str) -> str:
    """Whether a metric is better small, `min`, or large, `max`."""
    return "min" if metric.endswith("loss") else "max"


def require_validation(chosen: TrainingConfig) -> None:
    """Refuses what needs a validation split where there is none.

    Raises:
        ConfigError: A key watches validation.
    """
    watched = {
        "training.early_stopping.monitor": chosen.early_stopping.monitor or "",
        "training.schedule.monitor": chosen.schedule.monitor
        if chosen.schedule.kind == "plateau"
        else "",
    }
    for key, metric in watched.items():
        if metric.startswith("val_"):
            raise ConfigError(
                f"{key}: {metric} needs a validation split, and the dataset has none; make it with"
                " split.validation"
            )
    if chosen.restarts > 1:
        raise ConfigError(
            "training.restarts: the best of several needs a validation split, and the dataset has"
            " none; make it with split.validation"
        )
