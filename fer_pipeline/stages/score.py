"""From images and a trained run to an emotion, with its probabilities, for each image."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fer_pipeline import manifest, provenance, publication, storage
from fer_pipeline.config import Config
from fer_pipeline.config.schema import InferenceConfig
from fer_pipeline.emotions import Labels
from fer_pipeline.errors import InputError, RunError
from fer_pipeline.learning.model import run_folder
from fer_pipeline.learning.model.predictor import Settings, predictor
from fer_pipeline.learning.model.run_folder import RunInfo
from fer_pipeline.publication import SCORES
from fer_pipeline.rows import Judge
from fer_pipeline.spark import scoring
from fer_pipeline.spark.records import Reading
from fer_pipeline.spark.scoring import UNCERTAIN, Pixels, Scored
from fer_pipeline.spark.session import SparkSession
from fer_pipeline.spark.sources import Sources
from fer_pipeline.stages import runtime
from fer_pipeline.stages.runtime import Runtime

_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "ai-edge-litert", "pyspark")


@dataclass(frozen=True)
class Scores:
    """What a run of the job made.

    Attributes:
        format: What this is.
        images: Number of input images, readable or not.
        scored: How many of them have an emotion.
        emotions: How many images show each emotion, or an uncertain one where
            `inference.min_confidence` is set.
        unscored: How many have none, by reason.
        files: Path, rows and bytes of each file.
        model: Which model it was: its run's folder and the checksum of its file.
        backend: What ran it: its name, the form of the model that it ran, why, and the checksum of
            this form's file.
        flip_tta: Whether its answer is the mean of those for the image and its mirror image.
        min_confidence: The probability below which an image is uncertain; 0 is off.
        versions: Of what made the scores.
        created: When.
    """

    format: str
    images: int
    scored: int
    emotions: dict[str, int]
    unscored: dict[str, int]
    files: list[dict[str, Any]]
    model: dict[str, Any]
    backend: dict[str, Any]
    flip_tta: bool
    min_confidence: float
    versions: dict[str, str]
    created: str


def score(
    spark: SparkSession,
    model: str | None,
    inputs: Sequence[str],
    output: str,
    config: Config,
    *,
    overwrite: bool = False,
) -> Scores:
    """Scores images.

    `scores.json` is written last and names the files: what it does not name is none of the scores.

    Args:
        spark: The session.
        model: A finished run's folder, or the name of a model of the package; None for its first
            choice.
        inputs: Folders of images, CSV files, or one dataset.
        output: The folder for the scores.
        config: The configuration.
        overwrite: Whether scores that are there may be replaced.

    Raises:
        RunError: The model's folder is no finished run, or has no export for the runtime that is
            configured.
        InputError: A source is missing or is not what it should be.
        DatasetError: A dataset is damaged, or its images are enhanced otherwise than the model's.
        StorageError: There are scores already, or the folder holds something else.
    """
    folder = storage.path(output).absolute()
    publication.claim(folder, SCORES, overwrite=overwrite)
    run = run_folder.located(model)
    info, content = run_folder.read_model(run)
    outcomes = _outcomes(run, info, config.inference)
    chosen = runtime.choose(run, info, content, config.inference.backend)
    load = _loader(spark, chosen, info, config.inference)
    with publication.writing(folder, SCORES, overwrite=overwrite):
        try:
            made, known = _scored(spark, inputs, folder, config, info, load)
            scored, unscored = sum(made.emotions.values()), sum(made.reasons.values())
            found = sum(file["rows"] for file in made.files)
            if scored + unscored != found or (known is not None and known != found):
                raise RuntimeError(
                    f"{known} found, {found} written, {scored + unscored} accounted for"
                )
            if not found:
                raise InputError(f"{', '.join(inputs)}: holds no image")
            publication.require_shared(folder, [file["path"] for file in made.files])
        except BaseException:
            publication.clean(folder, SCORES, _files_there(folder))
            raise
        result = Scores(
            format=SCORES.format,
            images=found,
            scored=scored,
            emotions={name: made.emotions[name] for name in outcomes},
            unscored=dict(made.reasons),
            files=made.files,
            model={"run": str(run.absolute()), "sha256": info.sha256},
            backend=chosen.said(),
            flip_tta=config.inference.flip_tta,
            min_confidence=config.inference.min_confidence,
            versions=provenance.versions(*_PACKAGES),
            created=provenance.now(),
        )
        storage.write_text(folder / SCORES.mark, json.dumps(asdict(result), indent=2) + "\n")
        config.write(folder / "config.yaml")
        publication.clean(folder, SCORES, [str(file["path"]) for file in made.files])
    return result


def _files_there(folder: Path) -> list[str]:
    """The files of the scores that the folder holds, if any."""
    mark = folder / SCORES.mark
    if not storage.exists(mark):
        return []
    return [file["path"] for file in json.loads(storage.read_text(mark))["files"]]


def _outcomes(run: Path, info: RunInfo, inference: InferenceConfig) -> list[str]:
    """What an image can be found to show."""
    if not inference.min_confidence:
        return info.classes
    if UNCERTAIN in info.classes:
        raise RunError(
            f"{run}: one of its emotions is called {UNCERTAIN}, as a score under"
            " inference.min_confidence is; score without that key"
        )
    return [*info.classes, UNCERTAIN]


def _loader(
    spark: SparkSession, chosen: Runtime, info: RunInfo, inference: InferenceConfig
) -> Callable[[], Callable[[Pixels], Any]]:
    """The function by which a worker gets the model: it travels there, so no path is shared."""
    shared = spark.sparkContext.broadcast(chosen.content)
    settings = Settings(
        runtime=chosen.name,
        network=info.network,
        size=info.size,
        batch_size=inference.batch_size,
        threads=int(spark.conf.get("spark.task.cpus", "1") or 1),
        flip=inference.flip_tta,
    )

    def load() -> Callable[[Pixels], Any]:
        return predictor(shared.value, settings)

    return load


def _scored(
    spark: SparkSession,
    inputs: Sequence[str],
    folder: Path,
    config: Config,
    info: RunInfo,
    load: Callable[[], Callable[[Pixels], Any]],
) -> tuple[Scored, int | None]:
    """Scores whatever the inputs are; also how many images there must be, where that is known."""
    least = config.inference.min_confidence
    if len(inputs) == 1 and manifest.exists_at(inputs[0]):
        path = storage.path(inputs[0])
        dataset = manifest.read(path)
        manifest.require_files(path, dataset)
        manifest.require_enhancement(path, dataset, info.enhancement)
        rows = scoring.dataset_rows(spark, path, dataset)
        crops = scoring.crops_of_dataset(dataset, info.size)
        return scoring.score(rows, crops, load, info.classes, folder, least), dataset.rows.written
    sources = Sources(spark, inputs, config.input.format)
    judge = Judge(Labels({}, ()), None, labelled=False)
    reading = Reading(
        judge,
        info.size,
        config.seed,
        labelled=False,
        usage=False,
        enhancement=info.enhancement,
    )
    offsets, known = sources.offsets()
    found, read = sources.reader(reading)
    crops = scoring.crops_of_records(read, offsets, info.size)
    return scoring.score(found, crops, load, info.classes, folder, least), known


def summary(made: Scores, output: str) -> str:
    """The result of the job for a terminal: what was found, and what the faces show."""
    lines = [f"{name:<12}{count:>10,}" for name, count in made.emotions.items()]
    lines.append("")
    unscored = made.images - made.scored
    lines.append(f"{made.images:,} images found = {made.scored:,} scored + {unscored:,} not scored")
    lines += [f"  not scored, {reason}: {count:,}" for reason, count in made.unscored.items()]
    lines.append(f"scores {output}")
    return "\n".join(lines)
