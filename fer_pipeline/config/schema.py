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

from fer_pipeline.config.base import Emotion, Fraction, Section, rename_keys
from fer_pipeline.config.training import ModelConfig, TrackingConfig, TrainingConfig
from fer_pipeline.data import emotions
from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.image_decoding import DecodingOptions
from fer_pipeline.data.outcomes import Split
from fer_pipeline.faces.detectors import DetectorName, DetectorOptions
from fer_pipeline.faces.photographs import FaceMode
from fer_pipeline.io import storage

Angle = Annotated[float, Field(gt=-360, lt=360)]
# With larger images, a Parquet row group would not fit into the memory of an ordinary worker.
ImageSize = Annotated[int, Field(ge=8, le=512)]

_DEFAULT_STRATIFIED_FRACTION = 0.1


def _normalize_usage(usage: str) -> str:
    """Return a usage without surrounding spaces and in lower case, for comparisons.

    A usage is a value of the Usage column of FER2013, or the name of a folder.
    """
    return usage.strip().lower()


class InputConfig(Section):
    """The source files and their label codes."""

    format: Literal["auto", "csv", "images"] = Field(
        "auto", description="Format of the input; auto decides by the file names."
    )
    emotions: dict[str, Emotion] = Field(
        default={str(code): name for code, name in enumerate(emotions.FER2013)},
        description="Emotion of each label code of the source. A list stands for the codes 0, 1, 2"
        " and so on.",
    )
    max_quarantined_fraction: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Largest fraction of quarantined records, and of CSV files that cannot be read"
        " to their end; the job fails above it.",
    )
    max_pixels: PositiveInt = Field(
        100_000_000,
        description="Largest number of pixels of an image file; a larger image is quarantined"
        " before it is decoded.",
    )
    keep_damaged: bool = Field(
        False,
        description="Whether to use images in which the decoder found damage; else they are"
        " quarantined.",
    )

    faces: Literal["crop", "detect"] = Field(
        "crop",
        description="What image files show, for preprocess: crop is one face that fills the image;"
        " detect is a photograph, whose largest face is found and aligned.",
    )

    @property
    def decoding(self) -> DecodingOptions:
        """Options of the decoding of image files."""
        return DecodingOptions(self.max_pixels, self.keep_damaged)

    @field_validator("emotions", mode="before")
    @classmethod
    def _normalize_codes(cls, raw: Any) -> Any:
        """Convert a list or mapping of emotions to a mapping whose label codes are of type `str`.

        The codes of a list are 0, 1, 2 and so on. Spaces around a code are removed. A value of any
        other type is returned unchanged.
        """
        if isinstance(raw, list | tuple):
            raw = dict(enumerate(raw))
        if isinstance(raw, dict):
            return rename_keys(raw, lambda code: str(code).strip(), "code")
        return raw


class LabelsConfig(Section):
    """The source of the labels, and whether the training targets are hard or soft."""

    votes: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="CSV of votes in the format of FER+, which replace the labels of the input; it"
        " has one row for each row of the single input CSV.",
    )
    target: Literal["hard", "soft"] = Field(
        "hard",
        description="Training target: hard is the class with the most votes; soft also stores the"
        " fraction of votes for each class.",
    )

    @model_validator(mode="after")
    def _require_votes_for_soft(self) -> LabelsConfig:
        """Check that a file of votes is configured if `target` is soft."""
        if self.target == "soft" and self.votes is None:
            raise ValueError("target: soft needs votes, the path of a CSV")
        return self


class ImageConfig(Section):
    """The size, the normalisation and the data type of the stored images."""

    size: ImageSize = Field(
        48, description="Height and width of the images in pixels; 28 and 48 are usual."
    )
    normalization: Literal["centered", "unit", "standard"] = Field(
        "centered",
        description="Normalisation of the pixels: centered is (x - 128) / 128; unit is x / 255;"
        " standard is (x - mean) / std, with the mean and the standard deviation of the training"
        " split.",
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
        description="Assignment of images to splits: usage follows the source's Usage column or"
        " folder; stratified is random sampling per emotion.",
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
        description="Split of each usage (value of the Usage column or name of the folder),"
        " case-insensitive; null drops the rows of that usage. A usage that is not set keeps its"
        " default.",
    )
    validation: Fraction | None = Field(
        None,
        description="Fraction of the training rows of each emotion that is moved to the validation"
        " split; default 0.1 if method is stratified, else 0.",
    )
    test: Fraction | None = Field(None, description="Like `split.validation`, for the test split.")
    deduplicate: bool = Field(
        True,
        description="Drop from the training split: duplicates of test and validation images,"
        " duplicates with different labels, and repeated duplicates.",
    )

    @field_validator("usage_to_split", mode="after")
    @classmethod
    def _merge_with_defaults(cls, mapping: dict[str, Split | None]) -> dict[str, Split | None]:
        """Add the default split of each usage that is not configured; refuse a repeated usage.

        A usage is a value of the column Usage, or the name of a folder. Case and surrounding spaces
        are ignored when usages are compared.
        """
        configured_usages = rename_keys(mapping, _normalize_usage, "usage")
        defaults = {
            usage: split
            for usage, split in cls.model_fields["usage_to_split"].default.items()
            if usage.lower() not in configured_usages
        }
        return {**defaults, **mapping}

    @model_validator(mode="before")
    @classmethod
    def _fill_default_fractions(cls, raw: Any) -> Any:
        """Set `validation` and `test`, if not configured, to their defaults.

        The default is 0.1 if the split method is "stratified", otherwise 0.
        """
        if not isinstance(raw, dict):
            return raw
        default = _DEFAULT_STRATIFIED_FRACTION if raw.get("method") == "stratified" else 0.0
        unset_keys = [key for key in ("validation", "test") if raw.get(key) is None]
        return {**raw, **dict.fromkeys(unset_keys, default)}

    @model_validator(mode="after")
    def _check_fractions(self) -> SplitConfig:
        """Check that validation and test together leave rows for training.

        For a stratified split, they must not both be 0.
        """
        heldout_fraction = (self.validation or 0) + (self.test or 0)
        if heldout_fraction >= 1:
            raise ValueError(f"validation + test = {heldout_fraction:g} leaves nothing to train on")
        if self.method == "stratified" and not heldout_fraction:
            raise ValueError("method: stratified needs a validation or test fraction above 0")
        return self


class VariantsConfig(Section):
    """The variants of training images that are stored in the dataset."""

    flip: bool = Field(False, description="Store the mirror image of each training image.")
    rotations: list[Angle] = Field(
        [],
        description="Store each training image rotated about its centre by each of these angles in"
        " degrees; positive is counter-clockwise.",
    )
    border: Literal["constant", "replicate", "reflect"] = Field(
        "constant",
        description="Fill of the corners that a rotation leaves empty: constant is black, replicate"
        " is the nearest pixel, reflect is the mirror image.",
    )

    @field_validator("rotations")
    @classmethod
    def _check_rotations(cls, angles: list[float]) -> list[float]:
        """Check that the angles differ from each other and from 0."""
        if len(set(angles)) < len(angles):
            raise ValueError("contains an angle twice")
        if 0 in angles:
            raise ValueError("an angle of 0 is the image itself")
        return angles


class SamplingConfig(Section):
    """Oversampling of classes in the training split."""

    balance: bool = Field(
        False, description="Oversample each class to the size of the largest class."
    )
    oversample: dict[Emotion, Annotated[float, Field(ge=1, le=1000)]] = Field(
        default={}, description="Number of times each training image of an emotion is stored."
    )

    @field_validator("oversample", mode="before")
    @classmethod
    def _canonicalize_emotions(cls, raw: Any) -> Any:
        """Return the mapping with canonical emotion names as its keys.

        Unknown names stay as they are. A value that is not a mapping is returned unchanged.
        """

        def canonicalize_key(key: Any) -> str:
            """Return the canonical name of an emotion, or an unknown name unchanged."""
            try:
                return emotions.canonical_emotion(str(key))
            except ValueError:
                return str(key)

        return rename_keys(raw, canonicalize_key, "emotion") if isinstance(raw, dict) else raw


class OutputConfig(Section):
    """The Parquet files of the dataset."""

    files_per_split: PositiveInt | None = Field(
        None,
        description="Number of files of each split; by default it depends on the size of the"
        " input.",
    )
    row_group_rows: PositiveInt | None = Field(
        None,
        description="Number of rows in each Parquet row group; by default small enough that 64"
        " readers can share a split.",
    )
    compression: Literal["zstd", "snappy", "none"] = Field(
        "zstd", description="Compression of the Parquet files."
    )


class FacesConfig(Section):
    """The search for faces in photographs."""

    detector: DetectorName = Field(
        "auto",
        description="Networks that find faces: auto combines two BlazeFace networks; the others are"
        " single ones.",
    )
    min_size: PositiveInt | None = Field(
        None,
        description="Height of the smallest face to find, in pixels; by default 2 % of the longer"
        " side of the image, and at least 20.",
    )
    min_confidence: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Confidence of the detector below which a face is ignored; by default 0.6 for"
        " auto, and 0.5 for the others.",
    )
    max_faces: PositiveInt = Field(
        100, description="Largest number of faces of an image; the most certain ones are kept."
    )
    tiles: bool = Field(
        True, description="Whether to look for small faces in overlapping tiles of large images."
    )

    @property
    def detector_options(self) -> DetectorOptions:
        """Options of the detector."""
        return DetectorOptions(
            self.detector, self.min_size, self.min_confidence, self.max_faces, self.tiles
        )


ReaderName = Literal["petastorm", "pyarrow"]
"""Package that reads a dataset for TensorFlow."""


class LoaderConfig(Section):
    """The loading of batches from a dataset during training."""

    batch_size: PositiveInt = Field(32, description="Number of images per training step.")
    shuffle_buffer: PositiveInt = Field(
        16384, description="Size of the shuffle buffer: its number of images."
    )
    reader: ReaderName = Field(
        "petastorm",
        description="Package that reads the dataset. The images have the same order with both;"
        " pyarrow reads faster, and takes the place of a petastorm that is not installed.",
    )
    deterministic: bool = Field(
        True,
        description="Load the images in the same order for the same seed. With false, petastorm"
        " reads with several threads, and the order varies; pyarrow always reads in order.",
    )
    cache_in_memory: bool = Field(
        False, description="Keep the decoded uint8 images in memory after the first epoch."
    )


class InferenceConfig(Section):
    """The inference with a trained model in the jobs evaluate, compare and score."""

    batch_size: PositiveInt = Field(256, description="Number of images per forward pass.")
    flip_tta: bool = Field(
        False,
        description="Test-time augmentation: average the probabilities of each image and its"
        " mirror image.",
    )
    min_confidence: Fraction = Field(
        0.0,
        description="Confidence (probability of the predicted emotion) below which score reports"
        " the emotion as uncertain.",
    )
    min_scored_fraction: Fraction = Field(
        0.0,
        description="Fraction of the images that score must be able to score; otherwise it ends"
        " with an error. If it can score none, it always does.",
    )
    faces: FaceMode = Field(
        "auto",
        description="What image files show, for score: crop is one face that fills the image;"
        " detect is a photograph, whose faces are found and aligned; auto decides for each image.",
    )
    min_quality: Fraction = Field(
        0.0,
        description="Quality of a found face, from its size, sharpness and pose, below which score"
        " refuses it.",
    )
    every: float | None = Field(
        None,
        gt=0,
        description="Time in seconds between the frames of clips (videos, and animated GIF, PNG and"
        " WebP images) that score reads. Without it, score reads no videos, and an animated image"
        " is one image.",
    )
    smoothing: float = Field(
        1.0,
        ge=0,
        description="Half of the width in seconds of the window in which score averages the"
        " probabilities of a face in a clip; 0 averages nothing.",
    )
    format: Literal["parquet", "csv", "jsonl"] = Field(
        "parquet",
        description="Format of the scores: csv and jsonl (JSON lines) write all of them to one more"
        " file, scores.csv or scores.jsonl, without the images of the faces.",
    )
    backend: Literal["auto", "keras", "litert"] = Field(
        "auto",
        description="Software that runs the model. litert runs the export in the subfolder export"
        " of the run. With auto, score runs that export if it is faster, or TensorFlow is not"
        " installed, and its predictions are equal; evaluate runs Keras.",
    )


class Config(Section):
    """The complete configuration of all jobs."""

    seed: NonNegativeInt = Field(0, le=2**31 - 1, description="Seed of all random choices.")
    classes: list[Emotion] = Field(
        default=[],
        description="Emotions to keep, in the order of their class indices; by default all"
        " emotions.",
    )
    input: InputConfig = InputConfig()
    faces: FacesConfig = FacesConfig()
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
        """Check the classes and the oversampling; one error lists all problems.

        There must be two or more classes, all different. Each must be one of `input.emotions`; if
        FER+ votes are configured, any known emotion is possible. `sampling.oversample` may contain
        only classes, and must be empty if `sampling.balance` is set.
        """
        problems = []
        repeated = {name for name in self.classes if self.classes.count(name) > 1}
        if repeated:
            problems.append(f"classes contains {', '.join(sorted(repeated))} twice")
        oversample = self.sampling.oversample
        unknown_classes = [name for name in oversample if name not in self.class_names]
        if unknown_classes:
            problems.append(
                f"sampling.oversample contains {', '.join(unknown_classes)}, which is not among the"
                " classes"
            )
        # FER+ votes may contain emotions that the source does not have, such as contempt.
        available_emotions = emotions.KNOWN if self.labels.votes else self.input.emotions.values()
        unknown_emotions = [name for name in self.classes if name not in available_emotions]
        if unknown_emotions:
            problems.append(
                f"classes contains {', '.join(unknown_emotions)}, which is not among input.emotions"
            )
        if self.sampling.balance and oversample:
            problems.append("sampling.balance and sampling.oversample are both set; keep one")
        if len(self.class_names) < 2:
            problems.append("classes must contain two or more emotions")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def class_names(self) -> list[str]:
        """Emotions in the order of their class indices.

        These are `classes` if it is configured, otherwise all emotions of `input.emotions`.
        """
        return self.classes or list(dict.fromkeys(self.input.emotions.values()))

    def is_set(self, key: str) -> bool:
        """Return whether a dotted key was set explicitly, even to the same value as its default.

        Args:
            key: Dotted key, such as `image.size`. A key within a mapping, such as an emotion in
                `sampling.oversample`, counts as set if the mapping is set.
        """
        section: Any = self
        for part in key.split("."):
            if not isinstance(section, BaseModel):
                return True
            if part not in section.model_fields_set:
                return False
            section = getattr(section, part)
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration with all defaults, as nested mappings of JSON types."""
        return self.model_dump(mode="json")

    def write(self, path: Path) -> None:
        """Write the configuration with all defaults to a YAML file that `load_config` can read.

        Raises:
            StorageError: The file cannot be written.
        """
        storage.write_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False))
