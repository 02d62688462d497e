"""The configuration's keys, their types, ranges, defaults and meanings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from fer_pipeline.config.learning import Model, Tracking, Training
from fer_pipeline.config.section import Emotion, Fraction, Section, renamed
from fer_pipeline.data import emotions
from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.outcomes import Split
from fer_pipeline.io import storage

Angle = Annotated[float, Field(gt=-360, lt=360)]
# Above this a single row group of a batch would not fit the memory of an ordinary worker.
Size = Annotated[int, Field(ge=8, le=512)]


def _usage_name(text: str) -> str:
    return text.strip().lower()


class Input(Section):
    """What the sources are."""

    format: Literal["auto", "csv", "images"] = Field(
        "auto", description="what an input is; auto goes by the names of its files"
    )
    emotions: dict[str, Emotion] = Field(
        default={str(code): name for code, name in enumerate(emotions.FER2013)},
        description="the emotion behind each code of the source; a list counts from 0",
    )
    max_bad_fraction: float = Field(
        0.01, ge=0, le=1, description="more bad rows than this fail the job"
    )

    @field_validator("emotions", mode="before")
    @classmethod
    def _codes(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        if isinstance(value, dict):
            return renamed(value, lambda code: str(code).strip(), "code")
        return value


class Labels(Section):
    """Where the labels come from, if not from the source itself."""

    votes: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="CSV of votes in FER+'s form, row by row those for the one input CSV"
    )
    form: Literal["majority", "distribution"] = Field(
        "majority",
        description="the class with most votes; distribution stores the parts of the votes as well",
    )

    @model_validator(mode="after")
    def _distribution_of_something(self) -> Labels:
        if self.form == "distribution" and self.votes is None:
            raise ValueError("form: distribution needs votes, the path of a CSV")
        return self


class Image(Section):
    """What every image becomes."""

    size: Size = Field(48, description="side in pixels; 28 and 48 are the usual ones")
    normalization: Literal["centered", "unit", "standard"] = Field(
        "centered",
        description="centered: (x - 128) / 128; unit: x / 255; standard: (x - mean) / std of the"
        " training split",
    )
    dtype: Literal["uint8", "float32"] = Field(
        "uint8", description="store pixels, or the normalised values themselves"
    )
    enhancement: Annotated[
        Enhancement, BeforeValidator(lambda value: {} if value is None else value)
    ] = Enhancement()


class Splits(Section):
    """Which image goes where."""

    kind: Literal["usage", "stratified"] = Field(
        "usage", description="by the source's Usage column or folder, or drawn per emotion"
    )
    usage: dict[str, Split | None] = Field(
        default={
            "Training": Split.TRAIN,
            "PublicTest": Split.VALIDATION,
            "PrivateTest": Split.TEST,
            "train": Split.TRAIN,
            "validation": Split.VALIDATION,
            "val": Split.VALIDATION,
            "test": Split.TEST,
        },
        description="the split of each usage, in any case; null leaves its rows out. A usage that"
        " is not named here keeps its default",
    )
    validation: Fraction | None = Field(
        None,
        description="stratified part of the training rows; default 0.1 where kind is stratified,"
        " else none",
    )
    test: Fraction | None = Field(None, description="as validation")
    deduplicate: bool = Field(
        True,
        description="drop from training: copies of test and validation images, copies with"
        " different labels, further copies",
    )

    @field_validator("usage", mode="after")
    @classmethod
    def _over_defaults(cls, value: dict[str, Split | None]) -> dict[str, Split | None]:
        lower = renamed(value, _usage_name, "usage")
        defaults = cls.model_fields["usage"].default
        return {**{k: v for k, v in defaults.items() if k.lower() not in lower}, **value}

    @model_validator(mode="before")
    @classmethod
    def _fractions(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        drawn = 0.1 if value.get("kind") == "stratified" else 0.0
        return {
            **value,
            **{key: drawn for key in ("validation", "test") if value.get(key) is None},
        }

    @model_validator(mode="after")
    def _leave_training(self) -> Splits:
        parts = (self.validation or 0) + (self.test or 0)
        if parts >= 1:
            raise ValueError(f"validation + test = {parts:g} leaves nothing to train on")
        if self.kind == "stratified" and not parts:
            raise ValueError("kind: stratified needs a validation or test fraction above 0")
        return self


class Augmentation(Section):
    """The variants of each training image that are written beside it."""

    flip: bool = Field(False, description="its mirror image")
    rotations: list[Angle] = Field(
        [], description="angles in degrees, counter-clockwise positive, about the centre"
    )
    border: Literal["constant", "replicate", "reflect"] = Field(
        "constant", description="what a rotation leaves empty: black, nearest pixel, mirror image"
    )

    @field_validator("rotations")
    @classmethod
    def _distinct(cls, value: list[float]) -> list[float]:
        if len(set(value)) < len(value):
            raise ValueError("names an angle twice")
        if 0 in value:
            raise ValueError("an angle of 0 is the image itself")
        return value


class Output(Section):
    """How the dataset is laid out."""

    partitions: PositiveInt | None = Field(
        None, description="files per split; default by the size of the input"
    )
    row_group_rows: PositiveInt | None = Field(
        None, description="rows per row group; default: 64 readers can share the split"
    )
    compression: Literal["zstd", "snappy", "none"] = Field("zstd", description="of the files")


class Feed(Section):
    """How training reads the dataset."""

    batch_size: PositiveInt = Field(32, description="images per training step")
    shuffle_buffer: PositiveInt = Field(16384, description="images that are mixed at a time")
    deterministic: bool = Field(
        True, description="the same order for a seed; false reads with several threads"
    )
    cache: Literal["none", "memory"] = Field(
        "none", description="memory keeps the decoded uint8 images after the first pass"
    )


class Inference(Section):
    """How evaluate and score run the network."""

    batch_size: PositiveInt = Field(256, description="images that go through at once")
    flip: bool = Field(
        False, description="average the probabilities of each image and of its mirror image"
    )
    min_confidence: Fraction = Field(
        0.0, description="score calls an image of which the model is less sure uncertain"
    )
    runtime: Literal["auto", "keras", "litert"] = Field(
        "auto",
        description="what runs the model; litert: its export, in the run's folder export; auto:"
        " score takes that where it is faster at equal answers, evaluate takes keras",
    )


class Config(Section):
    """The whole configuration."""

    seed: NonNegativeInt = Field(0, le=2**31 - 1, description="of every random choice")
    classes: list[Emotion] = Field(
        default=[], description="emotions to keep, in the order of their labels; default: all"
    )
    input: Input = Input()
    labels: Labels = Labels()
    image: Image = Image()
    split: Splits = Field(default=Splits(), validate_default=True)
    oversample: dict[Emotion, Annotated[float, Field(ge=1, le=1000)]] = Field(
        default={}, description="how many times each training image of an emotion is written"
    )
    balance: bool = Field(False, description="oversample every class to the largest")
    augmentation: Augmentation = Augmentation()
    output: Output = Output()
    feed: Feed = Feed()
    model: Model = Model()
    training: Training = Field(default=Training(), validate_default=True)
    tracking: Tracking = Tracking()
    inference: Inference = Inference()

    @field_validator("oversample", mode="before")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        def name(key: Any) -> str:
            try:
                return emotions.canonical_emotion(str(key))
            except ValueError:
                return str(key)

        return renamed(value, name, "emotion") if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        problems = []
        repeated = {name for name in self.classes if self.classes.count(name) > 1}
        if repeated:
            problems.append(f"classes names {', '.join(sorted(repeated))} twice")
        absent = [name for name in self.oversample if name not in self.class_names]
        if absent:
            problems.append(f"oversample names {', '.join(absent)}, not among the classes")
        # Votes may name emotions that the source does not: contempt is one of FER+.
        named = emotions.KNOWN if self.labels.votes else self.input.emotions.values()
        missing = [name for name in self.classes if name not in named]
        if missing:
            problems.append(f"classes names {', '.join(missing)}, not among input.emotions")
        if self.balance and self.oversample:
            problems.append("balance and oversample are both given; keep one")
        if len(self.class_names) < 2:
            problems.append("classes needs at least two emotions")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of their labels."""
        return self.classes or list(dict.fromkeys(self.input.emotions.values()))

    def gives(self, key: str) -> bool:
        """Whether a dotted key was given, and is not only there by default."""
        section: Any = self
        for part in key.split("."):
            if not isinstance(section, BaseModel):
                return True
            if part not in section.model_fields_set:
                return False
            section = getattr(section, part)
        return True

    def dump(self) -> dict[str, Any]:
        """The resolved configuration as plain values."""
        return self.model_dump(mode="json")

    def write(self, path: Path) -> None:
        """Writes the resolved configuration as YAML; `load` reads it back."""
        storage.write_text(path, yaml.safe_dump(self.dump(), sort_keys=False))
