"""The sections of the model and its training: keys, types, ranges, defaults and help texts."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from fer_pipeline.config.base import Emotion, Fraction, Section, rename_keys
from fer_pipeline.data import emotions

Metric = Literal["loss", "accuracy", "val_loss", "val_accuracy", "val_mean_class_accuracy"]

TEMPERATURE_RANGE = (0.05, 20.0)
"""The smallest and the largest softmax temperature: the number that divides a model's logits."""


class ModelConfig(Section):
    """The network that is trained."""

    name: str = Field(
        "system_a",
        description="Network: a module of fer_pipeline.learning.networks, or the dotted name of"
        " your own module or function.",
    )
    options: dict[str, Any] = Field(
        {}, description="Keyword arguments of the network's build function."
    )
    temperature: float | None = Field(
        None,
        ge=TEMPERATURE_RANGE[0],
        le=TEMPERATURE_RANGE[1],
        description="Softmax temperature of the trained model: the divisor of its logits; by"
        " default it is fitted on the validation split, or 1 if there is no such split.",
    )


class OptimizerConfig(Section):
    """The optimizer and its arguments."""

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = Field("sgd", description="Keras optimizer.")
    learning_rate: PositiveFloat = Field(
        0.05, description="Peak learning rate, reached after warm-up."
    )
    momentum: Fraction = Field(0.0, description="Momentum of sgd and rmsprop.")
    nesterov: bool = Field(False, description="Use Nesterov momentum with sgd.")
    weight_decay: NonNegativeFloat = Field(
        0.0,
        description="Decoupled weight decay: each step subtracts learning rate * weight_decay *"
        " kernel from the kernels, but not from biases and BatchNormalization.",
    )
    global_clipnorm: PositiveFloat | None = Field(
        None, description="Maximum global gradient norm; longer gradients are scaled down to it."
    )

    @model_validator(mode="after")
    def _reject_unused_keys(self) -> OptimizerConfig:
        """Check that the optimizer uses all configured keys, and that adamw has a weight decay."""
        if self.nesterov and (self.name != "sgd" or not self.momentum):
            raise ValueError("nesterov needs name: sgd and a momentum above 0")
        if self.momentum and self.name not in ("sgd", "rmsprop"):
            raise ValueError(f"momentum is not an argument of {self.name}; leave it out")
        if self.name == "adamw" and not self.weight_decay:
            raise ValueError("adamw without a weight_decay is adam; set one, or use adam")
        return self


class ScheduleConfig(Section):
    """The learning rate schedule."""

    kind: Literal["constant", "cosine", "plateau"] = Field(
        "constant",
        description="Learning rate schedule: cosine falls to min_learning_rate at the last step;"
        " plateau multiplies by factor after patience validations without improvement.",
    )
    warmup_epochs: NonNegativeFloat = Field(
        0.0,
        description="Epochs of linear warm-up from 0, for the constant and cosine schedules.",
    )
    min_learning_rate: NonNegativeFloat = Field(
        0.0,
        description="Lowest learning rate: cosine reaches it at the last step, and plateau does not"
        " go below it.",
    )
    monitor: Metric = Field("val_loss", description="Metric that plateau monitors.")
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="Factor by which plateau multiplies the learning rate."
    )
    patience: PositiveInt = Field(
        10,
        description="Number of validations without improvement after which plateau reduces the"
        " learning rate.",
    )
    min_delta: NonNegativeFloat = Field(
        0.0001, description="Smallest change that plateau counts as an improvement."
    )

    @model_validator(mode="after")
    def _reject_plateau_warmup(self) -> ScheduleConfig:
        """Check that no warm-up is configured for the plateau schedule, which has none."""
        if self.kind == "plateau" and self.warmup_epochs:
            raise ValueError("plateau has no warm-up; use constant or cosine")
        return self


class EarlyStoppingConfig(Section):
    """Early stopping of the training."""

    monitor: Metric | None = Field(
        None, description="Metric that early stopping monitors; null disables early stopping."
    )
    patience: PositiveInt = Field(
        10,
        description="Number of validations without improvement after which training stops.",
    )
    min_delta: NonNegativeFloat = Field(
        0.0, description="Smallest change that early stopping counts as an improvement."
    )


class AugmentationConfig(Section):
    """The random augmentation of the training images of each batch."""

    flip: bool = Field(False, description="Mirror each image with a probability of 1/2.")
    rotation: float = Field(
        0.0, ge=0, le=180, description="Largest random rotation in degrees, in either direction."
    )
    shift: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Largest random shift along each axis, as a fraction of the height and width,"
        " in either direction.",
    )
    zoom: float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="Range of the random scale of both axes: from 1 - zoom to 1 + zoom.",
    )
    shear: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Largest random horizontal shear factor, in either direction.",
    )
    border: Literal["constant", "replicate", "reflect"] = Field(
        "constant",
        description="Fill of the pixels that rotation, shift, zoom and shear leave empty: constant"
        " is black, replicate is the nearest pixel, reflect is the mirror image.",
    )
    brightness: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Largest random change of brightness, as a fraction of 255, in either"
        " direction.",
    )
    contrast: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Range of the random contrast factor, which scales the difference from the"
        " image's mean: from 1 - contrast to 1 + contrast.",
    )
    random_erasing: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Largest width of the random square that is filled with the image's mean, as a"
        " fraction of the image's width.",
    )


class DistillationConfig(Section):
    """Knowledge distillation: training on the predictions of other models."""

    teachers: list[Annotated[str, Field(min_length=1)]] = Field(
        [],
        description="Teacher models: folders of runs or names of bundled models, which were trained"
        " with the same classes and the same image settings.",
    )
    weight: Fraction = Field(
        0.7, description="Weight of the teachers' predictions in each training target."
    )


class TrainingConfig(Section):
    """The training of the network."""

    epochs: PositiveInt | None = Field(
        None, description="Number of passes over the training split; default 10."
    )
    steps: PositiveInt | None = Field(
        None, description="Number of training steps, instead of epochs."
    )
    validate_every_steps: PositiveInt | None = Field(
        None, description="Number of steps between validations; by default one epoch."
    )
    checkpoint_every_steps: PositiveInt | None = Field(
        None,
        description="Number of steps between checkpoints, in addition to the checkpoint at the end"
        " of each epoch.",
    )
    restarts: PositiveInt = Field(
        1,
        description="Number of times the training is run, each with a different sample order; the"
        " weights with the best validation metric of all are kept.",
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    select_best_by: Literal[Metric, "last"] = Field(
        "val_accuracy",
        description="Metric that selects the weights to keep; last keeps the weights of the last"
        " step.",
    )
    label_smoothing: Fraction = Field(
        0.0, description="Fraction of each target that is spread evenly over all classes."
    )
    class_weights: Literal["balanced"] | dict[Emotion, NonNegativeFloat] | None = Field(
        None,
        description="Weight of each class in the loss; 1 if not set. balanced is rows / (classes *"
        " rows of the class), from the manifest.",
    )
    mixup_alpha: NonNegativeFloat = Field(
        0.0,
        description="Alpha of the Beta distribution of mixup, which blends pairs of images; 0"
        " disables mixup.",
    )
    ema_decay: Fraction = Field(
        0.0,
        description="Decay of the exponential moving average of the weights; the average is kept"
        " instead of the weights. 0 disables it.",
    )
    distillation: DistillationConfig = DistillationConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    precision: Literal["float32", "mixed_bfloat16", "auto"] = Field(
        "float32",
        description="Precision of the computation; auto uses mixed_bfloat16 if the processor"
        " supports it.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_default_epochs(cls, raw: Any) -> Any:
        """Set epochs to 10 if neither epochs nor steps are configured."""
        if isinstance(raw, dict) and raw.get("epochs") is None and raw.get("steps") is None:
            return {**raw, "epochs": 10}
        return raw

    @field_validator("class_weights", mode="before")
    @classmethod
    def _validate_class_weights(cls, raw: Any) -> Any:
        """Check the class weights, and replace their keys by the canonical names of the emotions.

        Each weight must be finite and not negative, and at least one must be above 0. None and
        "balanced" are returned unchanged.
        """
        if not isinstance(raw, dict):
            if raw not in (None, "balanced"):
                raise ValueError("expected balanced, or a weight for each emotion")
            return raw
        weights = rename_keys(raw, lambda name: emotions.canonical_emotion(str(name)), "emotion")
        for name, weight in weights.items():
            if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise ValueError(f"{name}: expected a weight of 0 or more, got {weight!r}")
        if not any(weights.values()):
            raise ValueError("expected a weight above 0")
        return weights

    @model_validator(mode="after")
    def _check_consistency(self) -> TrainingConfig:
        """Check the keys that depend on each other.

        These are `select_best_by` and `restarts`, `epochs` and `steps`, and the learning rates of
        optimizer and schedule.
        """
        if self.select_best_by == "last" and self.restarts > 1:
            raise ValueError(
                "select_best_by: last cannot choose among several restarts; name a metric"
            )
        if self.epochs and self.steps:
            raise ValueError(
                "epochs and steps are both set; keep one, and set the other to null, as in"
                " --set training.steps=null"
            )
        peak_rate, lowest_rate = self.optimizer.learning_rate, self.schedule.min_learning_rate
        if self.schedule.kind == "cosine" and lowest_rate > peak_rate:
            raise ValueError(
                f"schedule.min_learning_rate is above the learning rate of {peak_rate:g}"
            )
        if self.schedule.kind == "plateau" and lowest_rate >= peak_rate:
            raise ValueError(
                f"schedule.min_learning_rate is not below the learning rate of {peak_rate:g}:"
                " plateau could never act"
            )
        return self


class MLflowConfig(Section):
    """Tracking with MLflow."""

    enabled: bool = Field(
        False, description="Log the run to MLflow, which the extra mlflow installs."
    )
    uri: str | None = Field(
        None,
        description="URI of the MLflow store; by default MLflow's own default,"
        " sqlite:///mlflow.db.",
    )
    experiment: Annotated[str, Field(min_length=1)] = Field(
        "fer_pipeline",
        description="Name of the MLflow experiment, which is created if it does not exist.",
    )


class TrackingConfig(Section):
    """Logs of a run's history, in addition to its `history.csv`."""

    tensorboard: bool = Field(
        True, description="Log the run for TensorBoard, to the subfolder tensorboard of the run."
    )
    mlflow: MLflowConfig = MLflowConfig()
