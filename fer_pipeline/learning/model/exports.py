"""What an export says of itself, `export.json`: what it is of, how it answers, how fast it is."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fer_pipeline import publication, storage
from fer_pipeline.errors import RunError
from fer_pipeline.publication import EXPORT

FORMAT_VERSION = 2
_FORMAT = storage.FileFormat(
    version=FORMAT_VERSION,
    error=RunError,
    invalid="is damaged",
    upgrade=publication.UPGRADE_RUN,
)
FLOAT, INT8 = "litert", "litert_int8"
"""The forms, of `publication.EXPORTED`, that LiteRT runs."""
EQUAL_IMAGES, EQUAL_LOSS, EQUAL_AGREEMENT = 500, Fraction(2, 1000), Fraction(97, 100)
"""A quantised model counts as giving equal answers where it was tried on so many images at least,
lost that much in accuracy at most, and said the same emotion for that part of them at least."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Agreement(_Part):
    """How a quantised model answers, beside the model in float32.

    Attributes:
        dataset: The dataset whose images were drawn: its folder and its checksum.
        seed: By which they were drawn.
        calibration_split: The split of those that it was quantised on.
        calibration_images: How many these were.
        split: The split of those that both models then answered.
        images: How many these were, one at least.
        agreeing_images: For how many of them both say the same emotion.
        correct_images: How many of them it recognises.
        float_correct_images: How many of them the model in float32 recognises.
    """

    dataset: dict[str, str]
    seed: int
    calibration_split: str
    calibration_images: int
    split: str
    images: int = Field(ge=1)
    agreeing_images: int
    correct_images: int
    float_correct_images: int

    @property
    def agreement(self) -> Fraction:
        """The part of the images for which both say the same emotion."""
        return Fraction(self.agreeing_images, self.images)

    @property
    def accuracy(self) -> Fraction:
        """The part of the images that it recognises."""
        return Fraction(self.correct_images, self.images)

    @property
    def float_accuracy(self) -> Fraction:
        """The part of the images that the model in float32 recognises."""
        return Fraction(self.float_correct_images, self.images)

    @property
    def loss(self) -> Fraction:
        """What quantisation costs in accuracy, exactly; below 0 where it is a gain."""
        return self.float_accuracy - self.accuracy

    @property
    def said(self) -> str:
        """How it answers, in words."""
        change = "gained" if self.loss < 0 else "lost"
        points = float(100 * abs(self.loss))
        return (
            f"on {self.images:,} images of the {self.split} split it said the same emotion for"
            f" {float(self.agreement):.2%} and {change} {points:.2f} points of accuracy"
        )

    @property
    def unequal(self) -> str:
        """What keeps these answers from counting as equal, in words; empty where nothing does."""
        if self.loss > EQUAL_LOSS:
            return f"it loses {float(100 * self.loss):.2f} points of accuracy"
        if self.agreement < EQUAL_AGREEMENT:
            return f"it says another emotion for {float(1 - self.agreement):.2%} of the images"
        if self.images < EQUAL_IMAGES:
            return f"it was tried on {self.images:,} images, {EQUAL_IMAGES} are needed"
        return ""


class Exported(_Part):
    """One form of the model.

    Attributes:
        format: Its name, a key of `publication.EXPORTED`.
        path: Its folder or file, relative to the export.
        bytes: Its size.
        largest_difference: Of two probabilities, its own and those of the model in float32; None of
            a quantised model.
        tolerance: What that may be at most.
        agreement: Of a quantised model.
        relative_speed: Its images a second in batches on one core, in units of what the run's own
            model does there; None in exports of before this was measured.
        sha256: Of each of its files, by their path relative to the export.
    """

    format: str
    path: str
    bytes: int
    largest_difference: float | None
    tolerance: float | None
    agreement: Agreement | None = None
    relative_speed: float | None = None
    sha256: dict[str, str]

    @property
    def equal(self) -> bool:
        """Whether it may stand in for the model wherever it is faster."""
        return not self.unequal

    @property
    def unequal(self) -> str:
        """What keeps its answers from counting as equal, in words; empty where nothing does."""
        return self.agreement.unequal if self.agreement else ""


class Export(_Part):
    """What a run of the job made; `export.json`.

    Attributes:
        model: Which model it was: its run's folder, the checksums of its file and its dataset.
        classes: The emotions in the order of the probabilities.
        size: The side of the images, in pixels.
        normalization: What the network sees of a pixel; the model itself applies it.
        enhancement: What images went through before, in training; the model does not apply it.
        signature: The names, dtypes and shapes of what goes in and comes out, of every form.
        precision: In which the run's `model.keras` computes, by its layers; it may have been
            trained in another one. The export computes in float32, int8 in integers.
        rounding: The largest difference of two probabilities that this makes.
        images: How many images were compared.
        exports: The forms.
        versions: Of what made them.
    """

    format: Literal["fer_pipeline export"] = "fer_pipeline export"
    format_version: int = FORMAT_VERSION
    model: dict[str, str]
    classes: list[str]
    size: int
    normalization: dict[str, Any]
    enhancement: dict[str, Any]
    signature: dict[str, Any]
    precision: str
    rounding: float
    images: int
    exports: list[Exported]
    versions: dict[str, str]


def read(folder: Path) -> Export:
    """Reads what an export says.

    Raises:
        RunError: It is damaged, or that of a later version.
        StorageError: It cannot be read.
    """
    return storage.read_described(folder / EXPORT.mark, Export, _FORMAT)
