"""Writing of export formats, each compared with the model before any of them is published."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.errors import RunError
from fer_pipeline.io.output_kinds import EXPORT_FILES
from fer_pipeline.learning.export import benchmark, calibration_images, formats, litert
from fer_pipeline.learning.export.calibration_images import LabelledImages
from fer_pipeline.learning.export.formats import Probabilities
from fer_pipeline.learning.inference import predict_split
from fer_pipeline.learning.inference.export_manifest import (
    LITERT_INT8,
    ExportedModel,
    QuantizationReport,
)
from fer_pipeline.learning.inference.predictor import Pixels
from fer_pipeline.learning.inference.trained_model import TrainedModel, compute_sha256

log = logging.getLogger(__name__)

MAX_ACCURACY_LOSS = Fraction(1, 100)
"""Maximum accuracy that a quantized model may lose to be exported."""

_ADVICE = "nothing was exported; --format can leave this format out"


@dataclass(frozen=True)
class ReferenceModel:
    """A model to export, with the data for the comparison with its exports.

    Attributes:
        model: The model on disk.
        network: Its Keras model, which computes in float32.
        images: Images of `formats.reference_images`.
        expected: Probabilities of the Keras model for these images.
        samples: Images that calibrate a quantization, and images that test it; None without a
            dataset.
        dataset: Folder and checksum of the dataset of these; empty without a dataset.
        seed: Seed of their sampling.
    """

    model: TrainedModel
    network: Any
    images: Pixels
    expected: Probabilities
    samples: tuple[LabelledImages, LabelledImages] | None
    dataset: dict[str, str]
    seed: int

    @classmethod
    def build(
        cls, model: TrainedModel, network: Any, dataset_path: str | Path | None, seed: int
    ) -> ReferenceModel:
        """Compute the data for the comparison.

        Args:
            model: The model on disk.
            network: Its Keras model, as `model.load_network` returns it.
            dataset_path: Folder of the dataset for a quantization.
            seed: Seed of the sampling of its images.

        Raises:
            DatasetError: The folder is no dataset, is damaged, or does not fit the model.
        """
        float32_network = formats.convert_to_float32(network)
        images = formats.make_reference_images(model.info.size)
        samples, description = None, {}
        if dataset_path is not None:
            dataset = StoredDataset.open(dataset_path)
            predict_split.require_compatible(model, dataset)
            _warn_about_different_dataset(model, dataset)
            samples = calibration_images.sample_calibration_images(dataset, model.info.size, seed)
            description = {"path": str(dataset.folder.resolve()), "checksum": dataset.checksum}
        return cls(
            model=model,
            network=float32_network,
            images=images,
            expected=formats.predict_on_cpu(float32_network, images),
            samples=samples,
            dataset=description,
            seed=seed,
        )

    def write(self, format_name: str, scratch: Path) -> ExportedModel:
        """Write a format to a scratch folder, load it from there, and compare it with the model.

        Args:
            format_name: Key of `output_kinds.EXPORT_FILES`.
            scratch: The scratch folder.

        Raises:
            RunError: Its probabilities differ too much, or the model cannot be converted.
        """
        log.info("writing %s", format_name)
        path = scratch / EXPORT_FILES[format_name]
        difference = tolerance = report = None
        if format_name == LITERT_INT8:
            report = self._write_int8(path)
        else:
            difference = self._write_float32(format_name, path)
            tolerance = formats.EXPORT_FORMATS[format_name].tolerance
        files = sorted(file for file in (path, *path.rglob("*")) if file.is_file())
        return ExportedModel(
            format=format_name,
            path=EXPORT_FILES[format_name],
            bytes=sum(file.stat().st_size for file in files),
            largest_difference=difference,
            tolerance=tolerance,
            agreement=report,
            sha256={str(file.relative_to(scratch)): compute_sha256(file) for file in files},
        )

    def _write_float32(self, format_name: str, path: Path) -> float:
        export_format = formats.EXPORT_FORMATS[format_name]
        export_format.write(self.network, path)
        probabilities = export_format.load(path)(self.images)
        difference = formats.compute_largest_difference(probabilities, self.expected)
        # In this form the condition is true for NaN as well.
        if not difference <= export_format.tolerance:
            raise RunError(
                f"{self.model.folder}: as {format_name} its probabilities differ by up to"
                f" {difference:.2g}, {export_format.tolerance:g} is allowed; {_ADVICE}"
            )
        return difference

    def _write_int8(self, path: Path) -> QuantizationReport:
        if self.samples is None:
            raise ValueError("a quantization needs the images of a dataset")
        calibration, trial = self.samples
        path.write_bytes(litert.convert_to_litert_int8(self.network, calibration.pixels))
        log.info("testing it on %d images of the %s split", len(trial.labels), trial.split)
        float_probabilities = formats.predict_on_cpu(self.network, trial.pixels)
        probabilities = formats.load_litert(path)(trial.pixels)
        invalid = int((~np.isfinite(probabilities).all(axis=1)).sum())
        if invalid:
            raise RunError(
                f"{self.model.folder}: as {LITERT_INT8} its probabilities are not finite for"
                f" {invalid:,} of {len(probabilities):,} images; {_ADVICE}"
            )
        predicted, float_predicted = (
            probabilities.argmax(axis=1),
            float_probabilities.argmax(axis=1),
        )
        report = QuantizationReport(
            dataset=self.dataset,
            seed=self.seed,
            calibration_split=str(calibration.split),
            calibration_images=len(calibration.labels),
            split=str(trial.split),
            images=len(trial.labels),
            agreeing_images=int((predicted == float_predicted).sum()),
            correct_images=int((predicted == trial.labels).sum()),
            float_correct_images=int((float_predicted == trial.labels).sum()),
        )
        if report.accuracy_loss > MAX_ACCURACY_LOSS:
            raise RunError(
                f"{self.model.folder}: as {LITERT_INT8} it classifies {report.correct_images:,} of"
                f" {report.images:,} images correctly, in float32 {report.float_correct_images:,};"
                f" a loss of {float(MAX_ACCURACY_LOSS):.0%} is allowed; {_ADVICE}"
            )
        return report


def _warn_about_different_dataset(model: TrainedModel, dataset: StoredDataset) -> None:
    if model.info.dataset_checksum != dataset.checksum:
        log.warning(
            "%s: is not the dataset that the model was trained on (checksum %s, that: %s); the"
            " accuracy that %s costs is measured on images that may be of another kind",
            dataset.folder,
            dataset.checksum,
            model.info.dataset_checksum,
            LITERT_INT8,
        )


def benchmark_exports(
    exports: list[ExportedModel], model: TrainedModel, scratch: Path
) -> list[ExportedModel]:
    """Measure the speed of exported formats.

    Args:
        exports: The formats.
        model: The exported model.
        scratch: Folder of the formats.

    Returns:
        The formats with their speed relative to the run's own model.

    Raises:
        RunError: The speed cannot be measured.
    """
    log.info("measuring the speed of each format")
    files = {export.format: scratch / export.path for export in exports}
    speeds = benchmark.measure_speeds(
        {benchmark.KERAS: model.model_file, **files}, model.info.network, model.info.size
    )
    return [
        export.model_copy(
            update={"relative_speed": speeds[export.format] / speeds[benchmark.KERAS]}
        )
        for export in exports
    ]
