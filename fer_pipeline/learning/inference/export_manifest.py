"""Description of an export, `export.json`: its model, its formats, their accuracy and speed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fer_pipeline.errors import RunError
from fer_pipeline.io.json_documents import UPGRADE_RUN, DocumentFormat, read_document
from fer_pipeline.io.output_kinds import ExportFile

FORMAT_VERSION = 2
_FORMAT = DocumentFormat(
    version=FORMAT_VERSION,
    error_class=RunError,
    problem="is damaged",
    upgrade=UPGRADE_RUN,
)

LITERT = "litert"
"""Key of `output_kinds.EXPORT_FILES`: LiteRT in float32."""
LITERT_INT8 = "litert_int8"
"""Key of `output_kinds.EXPORT_FILES`: LiteRT, quantized to 8-bit integers."""

# A quantized model counts as equivalent to the float32 model if it meets all three limits.
EQUIVALENT_MIN_IMAGES = 500
EQUIVALENT_MAX_LOSS = Fraction(2, 1000)  # of accuracy
EQUIVALENT_MIN_AGREEMENT = Fraction(97, 100)  # of the images


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True)


class QuantizationReport(_Section):
    """Comparison of a quantized model with the float32 model on images of a dataset.

    Attributes:
        dataset: Dataset of the images: its folder and its checksum.
        seed: Seed of the sampling of the images.
        calibration_split: Split of the images that calibrated the quantization.
        calibration_images: Number of these images.
        split: Split of the images that both models classified.
        images: Number of these images, at least one.
        agreeing_images: Number of images for which both models predict the same emotion.
        correct_images: Number of images that the quantized model classifies correctly.
        float_correct_images: Number of images that the float32 model classifies correctly.
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
        """Fraction of the images for which both models predict the same emotion."""
        return Fraction(self.agreeing_images, self.images)

    @property
    def accuracy(self) -> Fraction:
        """Accuracy of the quantized model."""
        return Fraction(self.correct_images, self.images)

    @property
    def float_accuracy(self) -> Fraction:
        """Accuracy of the float32 model."""
        return Fraction(self.float_correct_images, self.images)

    @property
    def accuracy_loss(self) -> Fraction:
        """Accuracy that quantization costs, exactly; below 0 for a gain."""
        return self.float_accuracy - self.accuracy

    @property
    def mismatch_reason(self) -> str | None:
        """Reason why the quantized model does not count as equivalent; None if it does."""
        if self.accuracy_loss > EQUIVALENT_MAX_LOSS:
            return f"it loses {float(100 * self.accuracy_loss):.2f} points of accuracy"
        if self.agreement < EQUIVALENT_MIN_AGREEMENT:
            return f"it predicts another emotion for {float(1 - self.agreement):.2%} of the images"
        if self.images < EQUIVALENT_MIN_IMAGES:
            return f"it was tested on {self.images:,} images, {EQUIVALENT_MIN_IMAGES} are needed"
        return None

    def describe(self) -> str:
        """Return the agreement and the change of accuracy as a sentence without a full stop."""
        change = "gained" if self.accuracy_loss < 0 else "lost"
        points = float(100 * abs(self.accuracy_loss))
        return (
            f"on {self.images:,} images of the {self.split} split it predicted the same emotion for"
            f" {float(self.agreement):.2%} and {change} {points:.2f} points of accuracy"
        )


class ExportedModel(_Section):
    """The model in one export format.

    Attributes:
        format: Name of the format, a key of `output_kinds.EXPORT_FILES`.
        path: Its folder or file, relative to the export.
        bytes: Size of its files.
        largest_difference: Largest difference of a probability from the float32 model's; None for
            a quantized model.
        tolerance: Maximum of this difference.
        agreement: Comparison of a quantized model with the float32 model.
        relative_speed: Images per second in batches on one core, relative to the run's own model;
            None in exports of versions that did not measure it.
        sha256: SHA-256 of each of its files, by path relative to the export.
    """

    format: str
    path: str
    bytes: int
    largest_difference: float | None
    tolerance: float | None
    agreement: QuantizationReport | None = None
    relative_speed: float | None = None
    sha256: dict[str, str]

    @property
    def is_equivalent(self) -> bool:
        """Return whether it may replace the model wherever it is faster."""
        return self.mismatch_reason is None

    @property
    def mismatch_reason(self) -> str | None:
        """Reason why it does not count as equivalent to the model; None if it does."""
        return self.agreement.mismatch_reason if self.agreement else None


class ExportManifest(_Section):
    """Content of `export.json`.

    Attributes:
        model: The exported model: its run's folder, the checksums of its file and its dataset.
        classes: Emotions in the order of the probabilities.
        size: Side of the images, in pixels.
        normalization: Normalisation of the pixels, which the model itself applies.
        enhancement: Enhancement of the training images, which the model does not apply.
        signature: Names, dtypes and shapes of the input and the output, the same in all formats.
        precision: Precision of the layers of the run's `model.keras`; it may have been trained in
            another one. The exports compute in float32, int8 in integers.
        rounding: Largest difference of a probability that this precision causes.
        images: Number of images that were compared.
        exports: The exported formats.
        versions: Versions of the packages that wrote the export.
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
    exports: list[ExportedModel]
    versions: dict[str, str]


def read_export_manifest(folder: Path) -> ExportManifest:
    """Read the description of an export.

    Raises:
        RunError: It is damaged, or a later version wrote it.
        StorageError: It cannot be read.
    """
    return read_document(folder / ExportFile.EXPORT_INFO, ExportManifest, _FORMAT)
