"""The forms of an export, each written and tried before any of them is published."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fer_pipeline import manifest, storage
from fer_pipeline.errors import RunError
from fer_pipeline.learning.data import sampling
from fer_pipeline.learning.data.sampling import Faces
from fer_pipeline.learning.model import exporting, litert, run_folder, speed
from fer_pipeline.learning.model.exporting import Probabilities
from fer_pipeline.learning.model.exports import INT8, Agreement, Exported
from fer_pipeline.learning.model.predictor import Pixels
from fer_pipeline.learning.model.run_folder import RunInfo
from fer_pipeline.publication import EXPORTED
from fer_pipeline.stages import predictions

log = logging.getLogger(__name__)

LOSS = Fraction(1, 100)
"""The most that a quantised model may lose in accuracy."""


@dataclass(frozen=True)
class Original:
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
    samples: tuple[Faces, ...]
    dataset: dict[str, str]
    seed: int

    @classmethod
    def of(
        cls, run: Path, trained: Any, info: RunInfo, dataset: str | Path | None, seed: int
    ) -> Original:
        """Prepares the comparison.

        Raises:
            DatasetError: The dataset is none, is damaged, or is not one for this model.
        """
        network, images = exporting.in_float32(trained), exporting.probe(info.size)
        samples: tuple[Faces, ...] = ()
        about = {}
        if dataset is not None:
            data = storage.path(dataset)
            made = manifest.read(data)
            predictions.require_fit(run, info, data, made)
            if info.dataset_checksum != made.checksum:
                log.warning(
                    "%s: is not the dataset that the model was trained on (checksum %s, that: %s);"
                    " what %s costs is measured on faces that may be of another kind",
                    data,
                    made.checksum,
                    info.dataset_checksum,
                    INT8,
                )
            samples = sampling.draw(data, made, info.size, seed)
            about = {"path": str(data.resolve()), "checksum": made.checksum}
        expected = exporting.run_model(network, images)
        return cls(run, network, images, expected, samples, about, seed)

    def write(self, form: str, scratch: Path) -> Exported:
        """Writes a form to a scratch folder, loads it from there and compares it with the model.

        Raises:
            RunError: It gives other answers, or cannot be made.
        """
        log.info("writing %s", form)
        path = scratch / EXPORTED[form]
        difference = tolerance = agreement = None
        if form == INT8:
            agreement = self._write_int8(path)
        else:
            difference = self._write_float(form, path)
            tolerance = exporting.FORMS[form].tolerance
        files = sorted(file for file in (path, *path.rglob("*")) if file.is_file())
        return Exported(
            format=form,
            path=EXPORTED[form],
            bytes=sum(file.stat().st_size for file in files),
            largest_difference=difference,
            tolerance=tolerance,
            agreement=agreement,
            sha256={str(file.relative_to(scratch)): run_folder.digest(file) for file in files},
        )

    def _write_float(self, form: str, path: Path) -> float:
        chosen = exporting.FORMS[form]
        chosen.write(self.network, path)
        found = chosen.load(path)(self.images)
        difference = exporting.largest_difference(found, self.expected)
        # Written so that NaN is refused too.
        if not difference <= chosen.tolerance:
            raise RunError(
                f"{self.run}: as {form} its probabilities differ by up to {difference:.2g},"
                f" {chosen.tolerance:g} is allowed; nothing was exported, --format leaves a form"
                " out"
            )
        return difference

    def _write_int8(self, path: Path) -> Agreement:
        calibration, trial = self.samples
        path.write_bytes(litert.in_int8(self.network, calibration.pixels))
        log.info("trying it on %d images of the %s split", len(trial.labels), trial.split)
        expected = exporting.run_model(self.network, trial.pixels)
        found = exporting.load_litert(path)(trial.pixels)
        wrong = int((~np.isfinite(found).all(axis=1)).sum())
        if wrong:
            raise RunError(
                f"{self.run}: as {INT8} it gives no finite probabilities for {wrong:,} of"
                f" {len(found):,} images; nothing was exported, --format leaves a form out"
            )
        answers, before = found.argmax(axis=1), expected.argmax(axis=1)
        agreement = Agreement(
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


def timed(made: list[Exported], run: Path, info: RunInfo, scratch: Path) -> list[Exported]:
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
    found = speed.measure({speed.KERAS: run / run_folder.MODEL, **files}, info.network, info.size)
    return [
        one.model_copy(update={"relative_speed": found[one.format] / found[speed.KERAS]})
        for one in made
    ]
