"""The forms of an export, each written and tried before any of them is published."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fer_pipeline.data import manifest
from fer_pipeline.errors import RunError
from fer_pipeline.io.output_kinds import EXPORT_FILES, RunFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.export import benchmark, calibration_images, formats, litert
from fer_pipeline.learning.export.calibration_images import LabelledImages
from fer_pipeline.learning.export.formats import Probabilities
from fer_pipeline.learning.inference import predict_split, trained_model
from fer_pipeline.learning.inference.export_manifest import INT8, ExportedModel, QuantizationReport
from fer_pipeline.learning.inference.predictor import Pixels
from fer_pipeline.learning.inference.trained_model import ModelInfo

log = logging.getLogger(__name__)

LOSS = Fraction(1, 100)
"""The most that a quantised model may lose in accuracy."""


@dataclass(frozen=True)
class ReferenceModel:
    """A model that is exported, and what its forms are compared with.

    Attributes:
        run: The run's folder.
        network: Its model, computing in float32.
        images: Those of `exporting.probe`.
        expected: What the model says of them.
        samples: Faces to quantise it on, and faces to try it on; empty without a dataset.
        dataset: Of these: its folder and its checksum.
        seed: By which they were drawn.
    """

    run: Path
    network: Any
    images: Pixels
    expected: Probabilities
    samples: tuple[LabelledImages, ...]
    dataset: dict[str, str]
    seed: int

    @classmethod
    def of(
        cls, run: Path, trained: Any, info: ModelInfo, dataset: str | Path | None, seed: int
    ) -> ReferenceModel:
        """Prepares the comparison.

        Raises:
            DatasetError: The dataset is none, is damaged, or is not one for this model.
        """
        network, images = formats.in_float32(trained), formats.reference_images(info.size)
        samples: tuple[LabelledImages, ...] = ()
        about = {}
        if dataset is not None:
            data = parse_path(dataset)
            made = manifest.read(data)
            predict_split.require_compatible(run, info, data, made)
            if info.dataset_checksum != made.checksum:
                log.warning(
                    "%s: is not the dataset that the model was trained on (checksum %s, that: %s);"
                    " what %s costs is measured on faces that may be of another kind",
                    data,
                    made.checksum,
                    info.dataset_checksum,
                    INT8,
                )
            samples = calibration_images.sample_calibration_images(data, made, info.size, seed)
            about = {"path": str(data.resolve()), "checksum": made.checksum}
        expected = formats.run_model(network, images)
        return cls(run, network, images, expected, samples, about, seed)

    def write(self, form: str, scratch: Path) -> ExportedModel:
        """Writes a form to a scratch folder, loads it from there and compares it with the model.

        Raises:
            RunError: It gives other answers, or cannot be made.
        """
        log.info("writing %s", form)
        path = scratch / EXPORT_FILES[form]
        difference = tolerance = agreement = None
        if form == INT8:
            agreement = self._write_int8(path)
        else:
            difference = self._write_float(form, path)
            tolerance = formats.FORMS[form].tolerance
        files = sorted(file for file in (path, *path.rglob("*")) if file.is_file())
        return ExportedModel(
            format=form,
            path=EXPORT_FILES[form],
            bytes=sum(file.stat().st_size for file in files),
            largest_difference=difference,
            tolerance=tolerance,
            agreement=agreement,
            sha256={
                str(file.relative_to(scratch)): trained_model.file_sha256(file) for file in files
            },
        )

    def _write_float(self, form: str, path: Path) -> float:
        chosen = formats.FORMS[form]
        chosen.write(self.network, path)
        found = chosen.load(path)(self.images)
        difference = formats.largest_difference(found, self.expected)
        # Written so that NaN is refused too.
        if not difference <= chosen.tolerance:
            raise RunError(
                f"{self.run}: as {form} its probabilities differ by up to {difference:.2g},"
                f" {chosen.tolerance:g} is allowed; nothing was exported, --format leaves a form"
                " out"
            )
        return difference

    def _write_int8(self, path: Path) -> QuantizationReport:
        calibration, trial = self.samples
        path.write_bytes(litert.in_int8(self.network, calibration.pixels))
        log.info("trying it on %d images of the %s split", len(trial.labels), trial.split)
        expected = formats.run_model(self.network, trial.pixels)
        found = formats.load_litert(path)(trial.pixels)
        wrong = int((~np.isfinite(found).all(axis=1)).sum())
        if wrong:
            raise RunError(
                f"{self.run}: as {INT8} it gives no finite probabilities for {wrong:,} of"
                f" {len(found):,} images; nothing was exported, --format leaves a form out"
            )
        answers, before = found.argmax(axis=1), expected.argmax(axis=1)
        agreement = QuantizationReport(
            dataset=self.dataset,
            seed=self.seed,
            calibration_split=str(calibration.split),
            calibration_images=len(calibration.labels),
            split=str(trial.split),
            images=len(trial.labels),
            agreeing_images=int((answers == before).sum()),
            correct_images=int((answers == trial.labels).sum()),
            float_correct_images=int((before == trial.labels).sum()),
        )
        if agreement.loss > LOSS:
            raise RunError(
                f"{self.run}: as {INT8} it recognises {agreement.correct_images:,} of"
                f" {agreement.images:,} images, in float32 {agreement.float_correct_images:,};"
                f" {float(LOSS):.0%} less is allowed; nothing was exported, --format leaves a form"
                " out"
            )
        return agreement


def benchmark_exports(
    made: list[ExportedModel], run: Path, info: ModelInfo, scratch: Path
) -> list[ExportedModel]:
    """Measures how fast the forms are.

    Args:
        made: The forms.
        run: The run's folder.
        info: What it says of its model.
        scratch: The folder in which the forms stand.

    Returns:
        The forms with their speed, in units of the run's own model's.

    Raises:
        RunError: It cannot be measured.
    """
    log.info("measuring how fast they are")
    files = {one.format: scratch / one.path for one in made}
    found = benchmark.measure(
        {benchmark.KERAS: run / RunFile.MODEL, **files}, info.network, info.size
    )
    return [
        one.model_copy(update={"relative_speed": found[one.format] / found[benchmark.KERAS]})
        for one in made
    ]
