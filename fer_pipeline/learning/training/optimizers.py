"""Keras optimizers, learning rate schedules and callbacks that the configuration selects."""

from __future__ import annotations

import keras

from fer_pipeline.config.training import OptimizerConfig, ScheduleConfig, TrainingConfig
from fer_pipeline.learning.training.settings_checks import count_warmup_steps


def make_optimizer(
    config: OptimizerConfig, schedule: ScheduleConfig, steps: int, steps_per_epoch: int
) -> keras.optimizers.Optimizer:
    """Return the configured optimizer; it has no variables yet.

    Args:
        config: The section `training.optimizer` of the configuration.
        schedule: The section `training.schedule` of the configuration.
        steps: Number of steps of the run.
        steps_per_epoch: Number of steps in one epoch.

    Raises:
        ConfigError: The warm-up is not shorter than the run.
    """
    learning_rate = _make_learning_rate(config.learning_rate, schedule, steps, steps_per_epoch)
    options = {
        "weight_decay": config.weight_decay or None,
        "global_clipnorm": config.global_clipnorm,
    }
    match config.name:
        case "sgd":
            return keras.optimizers.SGD(
                learning_rate, momentum=config.momentum, nesterov=config.nesterov, **options
            )
        case "rmsprop":
            return keras.optimizers.RMSprop(learning_rate, momentum=config.momentum, **options)
        case "adam":
            return keras.optimizers.Adam(learning_rate, **options)
        case "adamw":
            return keras.optimizers.AdamW(learning_rate, **options)


def _make_learning_rate(
    peak: float, schedule: ScheduleConfig, steps: int, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return a constant learning rate, or a schedule with a warm-up, a cosine decay or both.

    Args:
        peak: Largest learning rate, which is reached at the end of the warm-up.
        schedule: The section `training.schedule` of the configuration.
        steps: Number of steps of the run.
        steps_per_epoch: Number of steps in one epoch.

    Raises:
        ConfigError: The warm-up is not shorter than the run.
    """
    warmup_steps = count_warmup_steps(schedule, steps, steps_per_epoch)
    if schedule.kind != "cosine" and not warmup_steps:
        return peak
    # Without cosine decay the final rate equals the initial rate, so that the schedule is constant.
    final_fraction = schedule.min_learning_rate / peak if schedule.kind == "cosine" else 1.0
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else peak,
        decay_steps=steps - warmup_steps,
        alpha=final_fraction,
        warmup_target=peak if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def prepare_optimizer(
    optimizer: keras.optimizers.Optimizer,
    network: keras.Model,
    *,
    gradients_already_reduced: bool = False,
) -> None:
    """Create the optimizer's variables, and restrict the weight decay to kernels.

    Biases and the scales and offsets of BatchNormalization have one number per channel. Weight
    decay of these numbers would change the network's outputs without regularizing it (He et al.
    2019, section 3.1).

    Args:
        optimizer: Optimizer that has no variables yet.
        network: Network to train.
        gradients_already_reduced: Whether the caller sums the gradients over all workers before it
            applies them. By default Keras's optimizers sum the gradients themselves; this option
            turns that off.
    """
    optimizer.exclude_from_weight_decay(
        [variable for variable in network.trainable_variables if len(variable.shape) < 2]
    )
    if gradients_already_reduced:
        optimizer._all_reduce_sum_gradients = list
    optimizer.build(network.trainable_variables)


def make_monitor_callbacks(config: TrainingConfig) -> list[keras.callbacks.Callback]:
    """Return the Keras callbacks that the configuration enables.

    These are ReduceLROnPlateau, EarlyStopping, both or none.
    """
    callbacks: list[keras.callbacks.Callback] = []
    schedule, early_stopping = config.schedule, config.early_stopping
    if schedule.kind == "plateau":
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor=schedule.monitor,
                mode=get_monitor_mode(schedule.monitor),
                factor=schedule.factor,
                patience=schedule.patience,
                min_delta=schedule.min_delta,
                min_lr=schedule.min_learning_rate,
            )
        )
    if early_stopping.monitor:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor=early_stopping.monitor,
                mode=get_monitor_mode(early_stopping.monitor),
                patience=early_stopping.patience,
                min_delta=early_stopping.min_delta,
            )
        )
    return callbacks


def get_monitor_mode(metric: str) -> str:
    """Return `min` if smaller values of a metric are better, otherwise `max`."""
    return "min" if metric.endswith("loss") else "max"
