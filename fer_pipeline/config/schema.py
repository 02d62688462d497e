"""The configuration's sections: keys, types, ranges, defaults and help texts."""

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

from fer_pipeline import emotions, storage
from fer_pipeline.accounting import Split
from fer_pipeline.config.base import Emotion, Fraction, Section, rename_keys
from fer_pipeline.config.training import ModelConfig, TrackingConfig, TrainingConfig
from fer_pipeline.enhancement import Enhancement

Angle = Annotated[float, Field(gt=-360, lt=360)]
# A row group of larger images would not fit into the memory of an ordinary worker.
ImageSize = Annotated[int, Field(ge=8, le=512)]

_DEFAULT_STRATIFIED_FRACTION = 0.1


def _normalize_usage(usage: str) -> str:
    return usage.strip().lower()


class InputConfig(Section):
    """The source files."""

    format: Literal["auto", "csv", "images"] = Field(
        "auto", description="Format of the input; auto decides by the file names."
    )
    emotions: dict[str, Emotion] = Field(
        default={str(code): name for code, name in enumerate(emotions.FER2013)},
        description="Emotion of each label code of the source. The codes of a list count from 0.",
    )
    max_quarantined_fraction: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Largest fraction of quarantined records; the job fails above it.",
    )

    @field_validator("emotions", mode="before")
    @classmethod
    def _map_codes(cls, raw: Any) -> Any:
        if isinstance(raw, list | tuple):
            raw = dict(enumerate(raw))
        if isinstance(raw, dict):
            return rename_keys(raw, lambda code: str(code).strip(), "code")
        return raw


class LabelsConfig(Section):
    """The source of the labels, if it is not the input itself."""

    votes: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="CSV of votes in the format of FER+, with one row for each row of the single"
        " input CSV.",
    )
    target: Literal["hard", "soft"] = Field(
        "hard",
        description="Training target: hard is the class with most votes; soft also stores the"
        " fraction of the votes for each class.",
    )

    @model_validator(mode="after")
    def _require_votes_for_soft(self) -> LabelsConfig:
        if self.target == "soft" and self.votes is None:
            raise ValueError("target: soft needs votes, the path of a CSV")
        return self


class ImageConfig(Section):
    """The stored images."""

    size: ImageSize = Field(48, description="Side of the images in pixels; 28 and 48 are usual.")
    normalization: Literal["centered", "unit", "standard"] = Field(
        "centered",
        description="Normalisation of the pixels: centered is (x - 128) / 128; unit is x / 255;"
        " standard is (x - mean) / std of the training split.",
    )
    dtype: Literal["uint8", "float32"] = Field(
        "uint8", description="Stored data type: uint8 pixels, or normalised float32 values."
    )
    enhancement: Annotated[Enhancement, BeforeValidator(lambda raw: {} if raw is None else raw)] = (
        Enhancement()
    )


class SplitConfig(Section):
    """The assignment of images to the train, validation and test splits."""

    method: Literal["usage", "stratified"] = Field(
        "usage",
        description="How images are assigned to splits: by the source's Usage column or folder, or"
        " by stratified random sampling per emotion.",
    )
    usage_to_split: dict[str, Split | None] = Field(
        default={
            "Training": Split.TRAIN,
            "PublicTest": Split.VALIDATION,
            "PrivateTest": Split.TEST,
            "train": Split.TRAIN,
            "validation": Split.VALIDATION,
            "val": Split.VALIDATION,
            "test": Split.TEST,
        },
        description="Split of each usage, case-insensitive; null drops the usage's rows. A usage"
        " that is not named here keeps its default.",
    )
    validation: Fraction | None = Field(
        None,
        description="Stratified fraction of the training rows that is moved to the validation"
        " split; default 0.1 if method is stratified, else 0.",
    )
    test: Fraction | None = Field(None, description="Like `split.validation`, for the test split.")
    deduplicate: bool = Field(
        True,
        description="Drop from training: duplicates of test and validation images, duplicates with"
        " different labels, and repeated duplicates.",
    )

    @field_validator("usage_to_split", mode="after")
    @classmethod
    def _merge_with_defaults(cls, mapping: dict[str, Split | None]) -> dict[str, Split | None]:
        usages = rename_keys(mapping, _normalize_usage, "usage")
        defaults = cls.model_fields["usage_to_split"].default
        return {**{k: v for k, v in defaults.items() if k.lower() not in usages}, **mapping}

    @model_validator(mode="before")
    @classmethod
    def _fill_fractions(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        default = _DEFAULT_STRATIFIED_FRACTION if raw.get("method") == "stratified" else 0.0
        unset = [key for key in ("validation", "test") if raw.get(key) is None]
        return {**raw, **dict.fromkeys(unset, default)}

    @model_validator(mode="after")
    def _check_fractions(self) -> SplitConfig:
        heldout = (self.validation or 0) + (self.test or 0)
        if heldout >= 1:
            raise ValueError(f"validation + test = {heldout:g} leaves nothing to train on")
        if self.method == "stratified" and not heldout:
            raise ValueError("method: stratified needs a validation or test fraction above 0")
        return self


class VariantsConfig(Section):
    """The variants of each training image that are stored with it."""

    flip: bool = Field(False, description="Store the mirror image of each training image.")
    rotations: list[Angle] = Field(
        [],
        description="Angles in degrees of stored rotations about the centre; positive is"
        " counter-clockwise.",
    )
    border: Literal["constant", "replicate", "reflect"] = Field(
        "constant",
        description="Fill of the corners that a rotation leaves empty: black, the nearest pixel or"
        " the mirror image.",
    )

    @field_validator("rotations")
    @classmethod
    def _check_rotations(cls, angles: list[float]) -> list[float]:
        if len(set(angles)) < len(angles):
            raise ValueError("names an angle twice")
        if 0 in angles:
            raise ValueError("an angle of 0 is the image itself")
        return angles


class SamplingConfig(Section):
    """The class balance of the training split."""

    balance: bool = Field(
        False, description="Oversample every class to the size of the largest one."
    )
    oversample: dict[Emotion, Annotated[float, Field(ge=1, le=1000)]] = Field(
        default={}, description="Number of times each training image of an emotion is stored."
    )

    @field_validator("oversample", mode="before")
    @classmethod
    def _canonicalize_emotions(cls, raw: Any) -> Any:
        def canonicalize(key: Any) -> str:
            try:
                return emotions.canonical(str(key))
            except ValueError:
                return str(key)

        return rename_keys(raw, canonicalize, "emotion") if isinstance(raw, dict) else raw


class OutputConfig(Section):
    """The dataset's files."""

    files_per_split: PositiveInt | None = Field(
        None, description="Number of files of each split; by default chosen by the input's size."
    )
    row_group_rows: PositiveInt | None = Field(
        None,
        description="Rows of each Parquet row group; by default few enough for 64 readers to share"
        " the split.",
    )
    compression: Literal["zstd", "snappy", "none"] = Field(
        "zstd", description="Compression of the Parquet files."
    )


class LoaderConfig(Section):
    """The reading of a dataset in training."""

    batch_size: PositiveInt = Field(32, description="Images per training step.")
    shuffle_buffer: PositiveInt = Field(16384, description="Size of the shuffle buffer, in images.")
    deterministic: bool = Field(
        True,
        description="Deliver the same order for the same seed; false reads with several threads.",
    )
    cache_in_memory: bool = Field(
        False, description="Keep the decoded uint8 images in memory after the first epoch."
    )


class InferenceConfig(Section):
    """The running of a trained model by evaluate and score."""

    batch_size: PositiveInt = Field(256, description="Images per forward pass.")
    flip_tta: bool = Field(
        False,
        description="Test-time augmentation: average the probabilities of each image and its"
        " mirror image.",
    )
    min_confidence: Fraction = Field(
        0.0, description="Confidence below which score reports the emotion as uncertain."
    )
    backend: Literal["auto", "keras", "litert"] = Field(
        "auto",
        description="Software that runs the model. litert runs the export in the run's folder"
        " export. With auto, score runs the export if it is faster and its predictions are equal,"
        " and evaluate runs Keras.",
    )


class Config(Section):
    """The whole configuration."""

    seed: NonNegativeInt = Field(0, le=2**31 - 1, description="Seed of all random choices.")
    classes: list[Emotion] = Field(
        default=[],
        description="Emotions to keep, in the order of their class indices; by default all.",
    )
    input: InputConfig = InputConfig()
    labels: LabelsConfig = LabelsConfig()
    image: ImageConfig = ImageConfig()
    split: SplitConfig = Field(default=SplitConfig(), validate_default=True)
    sampling: SamplingConfig = SamplingConfig()
    variants: VariantsConfig = VariantsConfig()
    output: OutputConfig = OutputConfig()
    loader: LoaderConfig = LoaderConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = Field(default=TrainingConfig(), validate_default=True)
    tracking: TrackingConfig = TrackingConfig()
    inference: InferenceConfig = InferenceConfig()

    @model_validator(mode="after")
    def _check_consistency(self) -> Config:
        problems = []
        repeated = {name for name in self.classes if self.classes.count(name) > 1}
        if repeated:
            problems.append(f"classes names {', '.join(sorted(repeated))} twice")
        oversample = self.sampling.oversample
        absent = [name for name in oversample if name not in self.class_names]
        if absent:
            problems.append(f"sampling.oversample names {', '.join(absent)}, not among the classes")
        # FER+ votes may name emotions that the source does not have, such as contempt.
        available = emotions.KNOWN if self.labels.votes else self.input.emotions.values()
        missing = [name for name in self.classes if name not in available]
        if missing:
            problems.append(f"classes names {', '.join(missing)}, not among input.emotions")
        if self.sampling.balance and oversample:
            problems.append("sampling.balance and sampling.oversample are both set; keep one")
        if len(self.class_names) < 2:
            problems.append("classes needs at least two emotions")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def class_names(self) -> list[str]:
        """Emotions in the order of their class indices."""
        return self.classes or list(dict.fromkeys(self.input.emotions.values()))

    def is_set(self, key: str) -> bool:
        """Return whether a dotted key was set explicitly, so that it is not a default."""
        section: Any = self
        for part in key.split("."):
            if not isinstance(section, BaseModel):
                return True
            if part not in section.model_fields_set:
                return False
            section = getattr(section, part)
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved configuration as plain values."""
        return self.model_dump(mode="json")

    def write(self, path: Path) -> None:
        """Write the resolved configuration as YAML, which `load_config` reads."""
        storage.write_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False))
