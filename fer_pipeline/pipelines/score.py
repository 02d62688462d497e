"""From images and a trained run to an emotion, with its probabilities, for each image."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fer_pipeline.config import Config
from fer_pipeline.config.schema import InferenceConfig
from fer_pipeline.data.dataset import StoredDataset, is_dataset
from fer_pipeline.data.emotions import LabelEncoder
from fer_pipeline.data.record import LabelResolver
from fer_pipeline.errors import InputError, RunError
from fer_pipeline.io import versions as provenance
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import SCORES
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference import backend
from fer_pipeline.learning.inference.backend import InferenceBackend
from fer_pipeline.learning.inference.predictor import PredictorConfig, load_predict_fn
from fer_pipeline.learning.inference.trained_model import ModelInfo, TrainedModel
from fer_pipeline.spark import score_images
from fer_pipeline.spark.input_files import InputFiles
from fer_pipeline.spark.read_records import ParseOptions
from fer_pipeline.spark.score_images import UNCERTAIN, Pixels, ScoringTotals
from fer_pipeline.spark.session import SparkSession
from fer_pipeline.text import format_table

_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "ai-edge-litert", "pyspark")


@dataclass(frozen=True)
class ScoreManifest:
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
) -> ScoreManifest:
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
    output_folder = OutputFolder(parse_path(output).absolute(), SCORES, overwrite=overwrite)
    output_folder.ensure_writable()
    trained = TrainedModel.open(model)
    run, info, content = trained.folder, trained.info, trained.read_content()
    outcomes = _outcomes(run, info, config.inference)
    chosen = backend.choose_backend(trained, content, config.inference.backend)
    load = _loader(spark, chosen, info, config.inference)
    with output_folder.writing():
        made, known = _scored(spark, inputs, output_folder.path, config, info, load)
        scored, unscored = sum(made.emotions.values()), sum(made.reasons.values())
        found = sum(file["rows"] for file in made.files)
        if scored + unscored != found or (known is not None and known != found):
            raise RuntimeError(f"{known} found, {found} written, {scored + unscored} accounted for")
        if not found:
            raise InputError(f"{', '.join(inputs)}: holds no image")
        data_files = [str(file["path"]) for file in made.files]
        output_folder.require_files_visible(data_files)
        result = ScoreManifest(
            format=SCORES.format,
            images=found,
            scored=scored,
            emotions={name: made.emotions[name] for name in outcomes},
            unscored=dict(made.reasons),
            files=made.files,
            model={"run": str(run.absolute()), "sha256": info.sha256},
            backend=chosen.to_dict(),
            flip_tta=config.inference.flip_tta,
            min_confidence=config.inference.min_confidence,
            versions=provenance.package_versions(*_PACKAGES),
            created=provenance.utc_timestamp(),
        )
        document = json.dumps(asdict(result), indent=2) + "\n"
        output_folder.commit(document, config.write, data_files=data_files)
    return result


def _outcomes(run: Path, info: ModelInfo, inference: InferenceConfig) -> list[str]:
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
    spark: SparkSession, chosen: InferenceBackend, info: ModelInfo, inference: InferenceConfig
) -> Callable[[], Callable[[Pixels], Any]]:
    """The function by which a worker gets the model: it travels there, so no path is shared."""
    shared = spark.sparkContext.broadcast(chosen.content)
    settings = PredictorConfig(
        runtime=chosen.name,
        network=info.network,
        size=info.size,
        batch_size=inference.batch_size,
        threads=int(spark.conf.get("spark.task.cpus", "1") or 1),
        flip=inference.flip_tta,
    )

    def load() -> Callable[[Pixels], Any]:
        return load_predict_fn(shared.value, settings)

    return load


def _scored(
    spark: SparkSession,
    inputs: Sequence[str],
    folder: Path,
    config: Config,
    info: ModelInfo,
    load: Callable[[], Callable[[Pixels], Any]],
) -> tuple[ScoringTotals, int | None]:
    """Scores whatever the inputs are; also how many images there must be, where that is known."""
    least = config.inference.min_confidence
    if len(inputs) == 1 and is_dataset(inputs[0]):
        path = parse_path(inputs[0])
        stored = StoredDataset.open(path)
        stored.require_all_files()
        stored.require_enhancement(info.enhancement)
        dataset = stored.manifest
        rows = score_images.dataset_rows(spark, path, dataset)
        crops = score_images.crops_of_dataset(dataset, info.size)
        return score_images.score(
            rows, crops, load, info.classes, folder, least
        ), dataset.rows.written
    sources = InputFiles(spark, inputs, config.input.format)
    judge = LabelResolver(LabelEncoder({}, ()), None, labelled=False)
    reading = ParseOptions(
        judge,
        info.size,
        config.seed,
        labelled=False,
        usage=False,
        enhancement=info.enhancement,
    )
    offsets, known = sources.offsets()
    found, read = sources.reader(reading)
    crops = score_images.crops_of_records(read, offsets, info.size)
    return score_images.score(found, crops, load, info.classes, folder, least), known


def summary(made: ScoreManifest, output: str) -> str:
    """The result of the job for a terminal: what was found, and what the faces show."""
    counts = [[name, f"{count:,}"] for name, count in made.emotions.items()]
    lines = [format_table(counts, None, ["left", "right"]), ""]
    unscored = made.images - made.scored
    lines.append(f"{made.images:,} images found = {made.scored:,} scored + {unscored:,} not scored")
    lines += [f"  not scored, {reason}: {count:,}" for reason, count in made.unscored.items()]
    lines.append(f"scores {output}")
    return "\n".join(lines)
