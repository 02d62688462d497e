"""Write a model in export formats and compare each exported model with the original.

Formats are published only after all of them have passed the comparison.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fer_pipeline.config import Config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.errors import RunError
from fer_pipeline.io.output_kinds import EXPORT_FILES
from fer_pipeline.learning.export import benchmark, calibration_images, formats, litert
from fer_pipeline.learning.export.calibration_images import LabelledImages
from fer_pipeline.learning.export.formats import Probabilities
from fer_pipeline.learning.inference.export_manifest import (
    LITERT_INT8,
    ExportedModel,
    QuantizationReport,
)
from fer_pipeline.learning.inference.predictor import Pixels
from fer_pipeline.learning.inference.trained_model import TrainedModel, compute_sha256

log = logging.getLogger(__name__)

MAX_ACCURACY_LOSS = Fraction(1, 100)
"""Maximum loss of accuracy of an exported quantized model, as a fraction of the images."""

_ADVICE = "nothing was exported; --format can leave this format out"


@dataclass(frozen=True)
class ReferenceModel:
    """A model to export, with the images for the comparison with its exports.

    Attributes:
        model: Trained model on disk.
        network: Keras model with the weights of `model`, which computes in float32.
        images: Reference images: synthetic faces and noise, on which the model and its float32
            exports are compared; uint8 of shape (n, size, size).
        expected_probabilities: Probabilities of `network` for the reference images.
        samples: Images of a dataset for a quantization: calibration images, and trial images for
            testing the quantized model; None if nothing is quantized.
        dataset: Folder (`path`) and checksum (`checksum`) of the dataset that the samples come
            from; empty if nothing is quantized.
        seed: Random seed with which the samples were selected.
    """

    model: TrainedModel
    network: Any
    images: Pixels
    expected_probabilities: Probabilities
    samples: tuple[LabelledImages, LabelledImages] | None
    dataset: dict[str, str]
    seed: int

    @classmethod
    def build(
        cls, model: TrainedModel, network: Any, dataset: StoredDataset | None, config: Config
    ) -> ReferenceModel:
        """Convert the model to float32 and prepare the images for comparing it with its exports.

        For exports in float32, synthetic images are created and their probabilities predicted. For
        a quantized export, images are sampled from a dataset. If the model was trained on a
        different dataset, a warning is logged.

        Args:
            model: Trained model on disk.
            network: Keras model, from `model.load_network`.
            dataset: Dataset for quantization, which has the classes and the image enhancement of
                the model; None if no export is quantized.
            config: Configuration; only `seed`, for sampling images of the dataset, and
                `loader.reader` are used.

        Raises:
            DatasetError: The dataset is damaged or too small.
        """
        float32_network = formats.convert_to_float32(network)
        images = formats.make_reference_images(model.info.size)
        samples, description = None, {}
        if dataset is not None:
            _warn_about_different_dataset(model, dataset)
            samples = calibration_images.sample_calibration_and_trial_images(
                dataset, model.info.size, config.seed, config.loader.reader
            )
            description = {"path": str(dataset.folder.resolve()), "checksum": dataset.checksum}
        return cls(
            model=model,
            network=float32_network,
            images=images,
            expected_probabilities=formats.predict_on_cpu(float32_network, images),
            samples=samples,
            dataset=description,
            seed=config.seed,
        )

    def write_and_compare(self, format_name: str, scratch: Path) -> ExportedModel:
        """Export the model in one format, load the export, and compare it with the model.

        Args:
            format_name: Name of the export format, a key of `output_kinds.EXPORT_FILES`.
            scratch: Temporary folder to write the export to.

        Returns:
            Description of the exported model, with its size, its checksums and the comparison with
            the original model.

        Raises:
            RunError: The model cannot be converted, or the exported model differs too much from it.
        """
        log.info("writing %s", format_name)
        path = scratch / EXPORT_FILES[format_name]
        difference = tolerance = report = None
        if format_name == LITERT_INT8:
            report = self._write_int8_and_compare(path)
        else:
            difference = self._write_float32_and_compare(format_name, path)
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

    def _write_float32_and_compare(self, format_name: str, path: Path) -> float:
        """Export the model in float32 and compare both models' probabilities for `self.images`.

        Args:
            format_name: Name of the export format, a key of `formats.EXPORT_FORMATS`.
            path: Path of the file or folder to write.

        Returns:
            The largest absolute difference between a probability from the exported model and the
            same probability from the original model.

        Raises:
            RunError: The difference exceeds the tolerance of the format, or is NaN.
        """
        export_format = formats.EXPORT_FORMATS[format_name]
        export_format.write(self.network, path)
        probabilities = export_format.load(path)(self.images)
        difference = formats.compute_largest_difference(probabilities, self.expected_probabilities)
        # `not <=` instead of `>`, so that NaN is an error too.
        if not difference <= export_format.tolerance:
            raise RunError(
                f"{self.model.folder}: as {format_name} its probabilities differ by up to"
                f" {difference:.2g}, {export_format.tolerance:g} is allowed; {_ADVICE}"
            )
        return difference

    def _write_int8_and_compare(self, path: Path) -> QuantizationReport:
        """Quantize the model to 8-bit integers, write it, and compare it with the float32 model.

        Both models classify the trial images: images of the dataset that were not used to calibrate
        the quantization.

        Args:
            path: Path of the LiteRT file to write.

        Returns:
            The number of images that each model classifies correctly, the number of images for
            which both predict the same class, and the dataset and splits of the images.

        Raises:
            RunError: The model cannot be converted, a probability is not finite, or the accuracy
                decreases by more than `MAX_ACCURACY_LOSS`.
            ValueError: The attribute `samples` is None.
        """
        if self.samples is None:
            raise ValueError("a quantization needs the images of a dataset")
        calibration, trial = self.samples
        path.write_bytes(litert.convert_to_litert_int8(self.network, calibration.pixels))
        log.info(
            "testing %s on %d images of the %s split", LITERT_INT8, len(trial.labels), trial.split
        )
        float_probabilities = formats.predict_on_cpu(self.network, trial.pixels)
        probabilities = formats.load_litert_predict_fn(path)(trial.pixels)
        invalid_count = int((~np.isfinite(probabilities).all(axis=1)).sum())
        if invalid_count:
            raise RunError(
                f"{self.model.folder}: as {LITERT_INT8} its probabilities are not finite for"
                f" {invalid_count:,} of {len(probabilities):,} images; {_ADVICE}"
            )
        predicted_labels = probabilities.argmax(axis=1)
        float_predicted_labels = float_probabilities.argmax(axis=1)
        report = QuantizationReport(
            dataset=self.dataset,
            seed=self.seed,
            calibration_split=str(calibration.split),
            calibration_images=len(calibration.labels),
            split=str(trial.split),
            images=len(trial.labels),
            agreeing_images=int((predicted_labels == float_predicted_labels).sum()),
            correct_images=int((predicted_labels == trial.labels).sum()),
            float_correct_images=int((float_predicted_labels == trial.labels).sum()),
        )
        if report.accuracy_loss > MAX_ACCURACY_LOSS:
            raise RunError(
                f"{self.model.folder}: as {LITERT_INT8} it classifies {report.correct_images:,} of"
                f" {report.images:,} images correctly, in float32 {report.float_correct_images:,};"
                f" a loss of {float(MAX_ACCURACY_LOSS):.0%} is allowed; {_ADVICE}"
            )
        return report


def _warn_about_different_dataset(model: TrainedModel, dataset: StoredDataset) -> None:
    """Log a warning if the dataset for the quantization is not the training dataset of the model.

    The datasets are compared by their checksums.
    """
    if model.info.dataset_checksum != dataset.checksum:
        log.warning(
            "%s: is not the dataset that the model was trained on (its checksum is %s, expected"
            " %s); the loss of accuracy by %s is measured on images that may differ from the"
            " training images",
            dataset.folder,
            dataset.checksum,
            model.info.dataset_checksum,
            LITERT_INT8,
        )


def benchmark_exports(
    exports: list[ExportedModel], model: TrainedModel, scratch: Path
) -> list[ExportedModel]:
    """Measure the speed of the exported models relative to the original `model.keras`.

    Args:
        exports: Descriptions of the exported models.
        model: Trained model that was exported.
        scratch: Temporary folder that contains the exported models.

    Returns:
        Copies of the descriptions in which `relative_speed` is set: the speed of the exported model
        divided by the speed of `model.keras`.

    Raises:
        RunError: The measuring process failed.
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
