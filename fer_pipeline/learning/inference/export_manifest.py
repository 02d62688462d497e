"""Content of `export.json`, which describes an export of a trained model.

An export contains the model in one or several formats; `export.json` states their accuracy and
speed.
"""

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
"""Export format: LiteRT in float32. A key of `output_kinds.EXPORT_FILES`."""
LITERT_INT8 = "litert_int8"
"""Export format: LiteRT, quantized to 8-bit integers. A key of `output_kinds.EXPORT_FILES`."""

# A quantized model counts as equivalent to the float32 model if it meets all three limits.
EQUIVALENT_MIN_IMAGES = 500
EQUIVALENT_MAX_LOSS = Fraction(2, 1000)  # loss of accuracy; an accuracy is in [0, 1]
EQUIVALENT_MIN_AGREEMENT = Fraction(97, 100)  # fraction of the images


class _Section(BaseModel):
    """Immutable part of `export.json`."""

    model_config = ConfigDict(frozen=True)


class QuantizationReport(_Section):
    """Comparison of a quantized model with the float32 model on images of a dataset.

    Attributes:
        dataset: Folder (`path`) and checksum (`checksum`) of the dataset.
        seed: Random seed with which the images were sampled.
        calibration_split: Split that the calibration images of the quantization come from.
        calibration_images: Number of calibration images.
        split: Split that the test images come from, which both models classified.
        images: Number of test images; at least 1.
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
    def quantized_accuracy(self) -> Fraction:
        """Accuracy of the quantized model, as a fraction of the images."""
        return Fraction(self.correct_images, self.images)

    @property
    def float32_accuracy(self) -> Fraction:
        """Accuracy of the float32 model, as a fraction of the images."""
        return Fraction(self.float_correct_images, self.images)

    @property
    def accuracy_loss(self) -> Fraction:
        """Accuracy lost by the quantization, as a fraction; negative if the accuracy increased."""
        return self.float32_accuracy - self.quantized_accuracy

    @property
    def mismatch_reason(self) -> str | None:
        """Reason why the quantized model is not equivalent to the float32 model; None if it is.

        It is equivalent if it was tested on at least 500 images, loses at most 0.2 percentage
        points of accuracy, and predicts the same emotion for at least 97 % of the images.
        """
        if self.accuracy_loss > EQUIVALENT_MAX_LOSS:
            return f"it loses {float(100 * self.accuracy_loss):.2f} points of accuracy"
        if self.agreement < EQUIVALENT_MIN_AGREEMENT:
            return (
                f"it predicts a different emotion for {float(1 - self.agreement):.2%} of the images"
            )
        if self.images < EQUIVALENT_MIN_IMAGES:
            return f"it was tested on {self.images:,} images, {EQUIVALENT_MIN_IMAGES} are needed"
        return None

    def describe(self) -> str:
        """Return how often both models agree, and the change of accuracy, as part of a message."""
        change = "gained" if self.accuracy_loss < 0 else "lost"
        points = float(100 * abs(self.accuracy_loss))
        return (
            f"on {self.images:,} images of the {self.split} split it predicted the same emotion for"
            f" {float(self.agreement):.2%} and {change} {points:.2f} points of accuracy"
        )


class ExportedModel(_Section):
    """Description of the exported model in one format.

    Attributes:
        format: Name of the format, a key of `output_kinds.EXPORT_FILES`.
        path: Path of the exported file or folder, relative to the folder of the export.
        bytes: Total size of the exported files.
        largest_difference: Largest absolute difference between a probability of the exported model
            and of the float32 model; None for a quantized model.
        tolerance: Maximum allowed value of `largest_difference`; None for a quantized model.
        agreement: Comparison of a quantized model with the float32 model; None in float32.
        relative_speed: Images per second in batches on one core, divided by those of the run's
            `model.keras`; None if not measured, as in exports of old versions.
        sha256: SHA-256 of each exported file, by path relative to the folder of the export.
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
        """Return whether the exported model is accurate enough to replace the original model.

        A model that is not quantized always is, because the export job otherwise refuses it.
        """
        return self.mismatch_reason is None

    @property
    def mismatch_reason(self) -> str | None:
        """Reason why the exported model is not accurate enough to replace the original model.

        None if it is accurate enough. A model that is not quantized always is.
        """
        return self.agreement.mismatch_reason if self.agreement else None


class ExportManifest(_Section):
    """Content of `export.json`.

    Attributes:
        format: Marker of this kind of file.
        format_version: Version of the file format.
        model: Folder of the training run, and checksums of its model file and of its dataset.
        classes: Emotions in the order of the probabilities.
        size: Height and width of the images, in pixels.
        normalization: Normalisation of the pixels; part of the model.
        enhancement: Enhancement of the training images; not part of the model.
        signature: Names, dtypes and shapes of the input and the output, the same in all formats.
        precision: Precision of the layers in the run's `model.keras`, which may differ from the
            precision of the training. The exports compute in float32, or in 8-bit integers.
        rounding: Largest absolute difference between a probability computed in this precision and
            the same probability computed in float32.
        images: Number of images with which the float32 exports were compared with the model.
        exports: Description of each exported format.
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
    """Read `export.json`, the description of an export.

    Args:
        folder: Folder of the export.

    Raises:
        RunError: `export.json` is damaged, or has a different format version.
        StorageError: `export.json` is missing or cannot be read.
    """
    return read_document(folder / ExportFile.EXPORT_INFO, ExportManifest, _FORMAT)
