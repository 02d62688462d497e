"""The keys of the network and its training, their types, ranges, defaults and meanings."""

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

from fer_pipeline.config.section import Emotion, Fraction, Section, renamed
from fer_pipeline.data import emotions

Metric = Literal["loss", "accuracy", "val_loss", "val_accuracy", "val_mean_class_accuracy"]

TEMPERATURE_RANGE = (0.05, 20.0)
"""The least and the greatest that a model's logits are divided by."""


class Model(Section):
    """Which network is trained."""

    name: str = Field(
        "system_a",
        description="a module of fer_pipeline.learning.networks, or the dotted name of a module or"
        " function of your own",
    )
    options: dict[str, Any] = Field({}, description="arguments of its build function")
    temperature: float | None = Field(
        None,
        ge=TEMPERATURE_RANGE[0],
        le=TEMPERATURE_RANGE[1],
        description="what its logits are divided by before the softmax of the finished model;"
        " default: fitted on the validation split, 1 where there is none",
    )


class Optimizer(Section):
    """What makes a step of a gradient."""

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = Field("sgd", description="of Keras")
    learning_rate: PositiveFloat = Field(0.05, description="at its height, after any warm-up")
    momentum: Fraction = Field(0.0, description="of sgd and rmsprop")
    nesterov: bool = Field(False, description="Nesterov's form of sgd's momentum")
    weight_decay: NonNegativeFloat = Field(
        0.0,
        description="decoupled: each step takes learning rate * this off the kernels, not off"
        " biases and BatchNormalization",
    )
    clip_norm: PositiveFloat | None = Field(
        None, description="longest gradient, as the norm of all variables' together"
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Optimizer:
        if self.nesterov and (self.name != "sgd" or not self.momentum):
            raise ValueError("nesterov needs name: sgd and a momentum above 0")
        if self.momentum and self.name not in ("sgd", "rmsprop"):
            raise ValueError(f"momentum is not an argument of {self.name}; leave it out")
        if self.name == "adamw" and not self.weight_decay:
            raise ValueError("adamw without a weight_decay is adam; give one, or take adam")
        return self


class Schedule(Section):
    """How the learning rate changes."""

    kind: Literal["constant", "cosine", "plateau"] = Field(
        "constant",
        description="cosine falls to final at the last step; plateau multiplies by factor after"
        " patience validations without improvement",
    )
    warmup_epochs: NonNegativeFloat = Field(
        0.0, description="epochs of a linear rise from 0, of constant and cosine"
    )
    final: NonNegativeFloat = Field(0.0, description="the last rate of cosine")
    monitor: Metric = Field("val_loss", description="what plateau watches")
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="of plateau")
    patience: PositiveInt = Field(10, description="of plateau, in validations")
    min_delta: NonNegativeFloat = Field(0.0001, description="less is no improvement to plateau")
    minimum: NonNegativeFloat = Field(0.0, description="plateau goes no lower")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Schedule:
        if self.kind == "plateau" and self.warmup_epochs:
            raise ValueError("plateau has no warm-up; take constant or cosine")
        return self


class EarlyStopping(Section):
    """When training ends before its length."""

    monitor: Metric | None = Field(None, description="what is watched; off where not given")
    patience: PositiveInt = Field(10, description="validations without improvement")
    min_delta: NonNegativeFloat = Field(0.0, description="less is no improvement")


class TrainingAugmentation(Section):
    """What each image of a batch is changed by, drawn anew each time it is seen."""

    flip: bool = Field(False, description="mirror every second image, on average")
    rotation: float = Field(0.0, ge=0, le=180, description="up to so many degrees, either way")
    shift: float = Field(
        0.0, ge=0, le=0.5, description="up to this part of the side, along each axis, either way"
    )
    zoom: float = Field(
        0.0, ge=0, le=0.9, description="scale of both axes, between 1 - this and 1 + this"
    )
    shear: float = Field(
        0.0, ge=0, le=1, description="horizontal shear factor, up to this, either way"
    )
    border: Literal["constant", "replicate", "reflect"] = Field(
        "constant",
        description="what rotation, shift, zoom and shear leave empty: black, nearest pixel,"
        " mirror image",
    )
    brightness: float = Field(
        0.0, ge=0, le=1, description="added, up to this part of 255, either way"
    )
    contrast: float = Field(
        0.0, ge=0, lt=1, description="factor about the image's mean, between 1 - this and 1 + this"
    )
    erasing: float = Field(
        0.0,
        ge=0,
        le=1,
        description="side of a square that gets the image's mean, up to this part of the side",
    )


class Distillation(Section):
    """Trained models that a network learns from, beside the labels."""

    teachers: list[Annotated[str, Field(min_length=1)]] = Field(
        [], description="runs, or models of the package, that take the same images"
    )
    weight: Fraction = Field(0.7, description="the part of each target that they give")


class Training(Section):
    """How it is trained."""

    epochs: PositiveInt | None = Field(
        None, description="passes over the training split; default 10"
    )
    steps: PositiveInt | None = Field(None, description="or batches, in place of epochs")
    validate_every: PositiveInt | None = Field(
        None, description="steps between validations; default once an epoch"
    )
    checkpoint_every: PositiveInt | None = Field(
        None, description="steps between checkpoints, beside the one at the end of each epoch"
    )
    trials: PositiveInt = Field(
        1, description="runs with the samples in different orders; the best on validation is kept"
    )
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    early_stopping: EarlyStopping = EarlyStopping()
    best: Literal[Metric, "last"] = Field(
        "val_accuracy",
        description="what decides which weights are kept; last: those after the last step",
    )
    label_smoothing: Fraction = Field(
        0.0, description="part of each target that is shared among all classes"
    )
    class_weights: Literal["balanced"] | dict[Emotion, NonNegativeFloat] | None = Field(
        None,
        description="of each class in the loss, 1 where not given; balanced: rows / (classes * rows"
        " of the class), from the manifest",
    )
    mixup: NonNegativeFloat = Field(
        0.0, description="alpha of the Beta distribution that mixes pairs of images; 0 is off"
    )
    average: Fraction = Field(
        0.0, description="decay of the moving average of the weights that is kept; 0 is off"
    )
    distillation: Distillation = Distillation()
    augmentation: TrainingAugmentation = TrainingAugmentation()
    precision: Literal["float32", "mixed_bfloat16", "auto"] = Field(
        "float32",
        description="of the computation; auto: mixed_bfloat16 where the processor has it",
    )

    @model_validator(mode="before")
    @classmethod
    def _length(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("epochs") is None and value.get("steps") is None:
            return {**value, "epochs": 10}
        return value

    @field_validator("class_weights", mode="before")
    @classmethod
    def _weight_of_each(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            if value not in (None, "balanced"):
                raise ValueError("expected balanced, or a weight for each emotion")
            return value
        named = renamed(value, lambda name: emotions.canonical_emotion(str(name)), "emotion")
        for name, weight in named.items():
            if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise ValueError(f"{name}: expected a weight of 0 or more, got {weight!r}")
        if not any(named.values()):
            raise ValueError("expected a weight above 0")
        return named

    @model_validator(mode="after")
    def _consistent(self) -> Training:
        if self.best == "last" and self.trials > 1:
            raise ValueError("best: last cannot choose among several trials; name a metric")
        if self.epochs and self.steps:
            raise ValueError("epochs and steps are both given; keep one, and set the other to null")
        rate, schedule = self.optimizer.learning_rate, self.schedule
        if schedule.kind == "cosine" and schedule.final > rate:
            raise ValueError(f"schedule.final is above the learning rate of {rate:g}")
        if schedule.kind == "plateau" and schedule.minimum >= rate:
            raise ValueError(
                f"schedule.minimum is not below the learning rate of {rate:g}: plateau could never"
                " act"
            )
        return self


class Tracking(Section):
    """Where else the history of a run is written, beside its `history.csv`."""

    tensorboard: bool = Field(True, description="to the run's folder tensorboard")
    mlflow: bool = Field(False, description="to MLflow, which the extra mlflow installs")
    uri: str | None = Field(
        None, description="of MLflow's store; default its own, sqlite:///mlflow.db"
    )
    experiment: Annotated[str, Field(min_length=1)] = Field(
        "fer_pipeline", description="of MLflow, made where there is none"
    )
