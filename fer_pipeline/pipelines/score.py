"""Scoring of images with a trained model: an emotion and its probabilities for each image."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_pipeline.config import Config
from fer_pipeline.config.schema import InferenceConfig
from fer_pipeline.data.dataset import StoredDataset, is_dataset
from fer_pipeline.data.fer_csv import RequiredColumns
from fer_pipeline.data.image_notes import log_notes
from fer_pipeline.data.outcomes import QuarantineReason
from fer_pipeline.data.scores import ScoreFile, ScoreManifest
from fer_pipeline.errors import InputError, RunError
from fer_pipeline.io import versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import SCORES
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference import backend
from fer_pipeline.learning.inference.backend import InferenceBackend
from fer_pipeline.learning.inference.predictor import PredictFn, PredictorConfig, load_predict_fn
from fer_pipeline.learning.inference.trained_model import ModelInfo, TrainedModel
from fer_pipeline.spark import score_images
from fer_pipeline.spark.file_kinds import warn_about_unreadable_files
from fer_pipeline.spark.input_files import open_input_files
from fer_pipeline.spark.score_images import UNCERTAIN, ScoringOptions, ScoringTotals
from fer_pipeline.spark.session import SparkSession
from fer_pipeline.text import format_table

_PACKAGES = (
    "tensorflow",
    "keras",
    "ai-edge-litert",
    "pyspark",
)


@dataclass(frozen=True)
class _Scorer:
    """A trained model, and the function with which the Spark tasks load it.

    Attributes:
        model: Trained model.
        backend: Backend that runs the model, and the content of its model file.
        load: Function that a Spark task calls to load the model; it returns the prediction
            function.
    """

    model: TrainedModel
    backend: InferenceBackend
    load: Callable[[], PredictFn]

    @property
    def model_info(self) -> ModelInfo:
        """Description of the trained model."""
        return self.model.info


def score(
    spark: SparkSession,
    model: str | None,
    inputs: Sequence[str],
    output: str,
    config: Config,
    *,
    overwrite: bool = False,
) -> ScoreManifest:
    """Predict the emotion of each input image, and write the scores.

    The scores of an image are the predicted emotion and the probability of each class.
    `scores.json` is written last. It lists the Parquet files of the scores; other files in the
    folder are not part of the scores.

    Args:
        spark: Spark session.
        model: Folder of a finished run, or name of a bundled model; None is the default model.
        inputs: Paths or URLs of image folders, of CSV files, or of a single dataset.
        output: Folder for the scores.
        config: Configuration; only `inference` and the part of `input` about files are used.
        overwrite: Whether existing scores may be replaced.

    Returns:
        Description of the scores, which is the content of `scores.json`.

    Raises:
        RunError: The model's folder is not a finished run, has no export for the configured
            backend, or has a class with the name "uncertain" although `inference.min_confidence` is
            set.
        InputError: An input is missing or has a different format than expected, or fewer images
            than `inference.min_scored_fraction` demands could be scored.
        DatasetError: The dataset is damaged, or its image enhancement differs from the model's.
        StorageError: The folder holds scores that may not be replaced, or files that do not belong
            to scores.
    """
    output_folder = OutputFolder(parse_path(output).absolute(), SCORES, overwrite=overwrite)
    output_folder.ensure_writable()
    scorer = _load_scorer(spark, model, config.inference)
    outcomes = _list_possible_predictions(scorer.model, config.inference)
    with output_folder.lock_for_writing():
        totals, expected_count = _score_inputs(spark, inputs, output_folder.path, config, scorer)
        files = [ScoreFile.model_validate(file) for file in totals.files]
        _check_totals(totals, files, inputs, expected_count)
        if not files:
            raise InputError(f"{', '.join(inputs)}: holds no image")
        warn_about_unreadable_files(totals.problems)
        _require_scored_images(totals, inputs, config.inference.min_scored_fraction)
        log_notes(totals.notes)
        paths = [file.path for file in files]
        output_folder.require_files_visible(paths)
        scores = _make_score_manifest(scorer, config.inference, totals, files, outcomes)
        commit_content = json.dumps(scores.model_dump(), indent=2) + "\n"
        output_folder.commit(commit_content, config.write, data_files=paths)
    return scores


def _load_scorer(
    spark: SparkSession, model_name: str | None, inference: InferenceConfig
) -> _Scorer:
    """Open a trained model, choose its backend, and send the model file to the Spark executors.

    Args:
        spark: Spark session.
        model_name: Folder of a finished run, or name of a bundled model; None is the default model.
        inference: Configuration of the inference.

    Returns:
        The model, its backend, and a function that loads the model in a Spark task.
    """
    model = TrainedModel.open(model_name)
    inference_backend = backend.choose_backend(model, model.read_content(), inference.backend)
    # The content of the file is sent, because the executors may not see the model's folder.
    content = spark.sparkContext.broadcast(inference_backend.content)
    settings = PredictorConfig(
        backend=inference_backend.name,
        network=model.info.network,
        size=model.info.size,
        batch_size=inference.batch_size,
        threads=int(spark.conf.get("spark.task.cpus", "1") or 1),
        flip_tta=inference.flip_tta,
    )

    def load() -> PredictFn:
        """Load the broadcast model in a Spark task, and return its prediction function."""
        return load_predict_fn(content.value, settings)

    return _Scorer(model, inference_backend, load)


def _list_possible_predictions(model: TrainedModel, inference: InferenceConfig) -> list[str]:
    """Return the names that the prediction for an image can have.

    These are the classes of the model, and "uncertain" if `inference.min_confidence` is set.

    Args:
        model: Trained model.
        inference: Configuration of the inference.

    Raises:
        RunError: A class of the model has the name "uncertain".
    """
    classes = model.info.classes
    if not inference.min_confidence:
        return classes
    if UNCERTAIN in classes:
        raise RunError(
            f"{model.folder}: one of its emotions is called {UNCERTAIN}, as a score under"
            " inference.min_confidence is; score without that key"
        )
    return [*classes, UNCERTAIN]


def _score_inputs(
    spark: SparkSession,
    inputs: Sequence[str],
    output_folder: Path,
    config: Config,
    scorer: _Scorer,
) -> tuple[ScoringTotals, int | None]:
    """Score the input images, and write one Parquet file for each Spark task.

    Args:
        spark: Spark session.
        inputs: Paths or URLs of image folders, of CSV files, or of a single dataset.
        output_folder: Folder for the Parquet files.
        config: Configuration.
        scorer: Trained model, and the function that loads it in a Spark task.

    Returns:
        The totals of the written scores, and the number of images in the inputs. The latter is None
        if it is unknown.
    """
    model_info = scorer.model_info
    options = ScoringOptions(scorer.load, model_info.classes, config.inference.min_confidence)
    # A dataset can only be scored alone; any other input is a folder of images or a CSV file.
    if len(inputs) == 1 and is_dataset(inputs[0]):
        dataset = StoredDataset.open(inputs[0])
        dataset.require_all_files()
        dataset.require_enhancement(model_info.enhancement)
        source = score_images.create_dataset_source(spark, dataset, model_info.size)
        expected_count: int | None = dataset.manifest.rows.written
    else:
        files = open_input_files(spark, inputs, config.input.format)
        offsets, expected_count = files.compute_block_offsets()
        required = RequiredColumns(emotion=False, usage=False)
        reader = files.create_reader(required, config.input.decoding)
        source = score_images.create_file_source(
            reader, offsets, model_info.size, model_info.enhancement
        )
    return score_images.score_source(source, options, output_folder), expected_count


def _check_totals(
    totals: ScoringTotals,
    files: Sequence[ScoreFile],
    inputs: Sequence[str],
    expected_count: int | None,
) -> None:
    """Check that each image has one row and was counted once, as scored or as not scored.

    Args:
        totals: Number of scored images by emotion, and of images without a score by reason.
        files: Written Parquet files, with their numbers of rows.
        inputs: Paths or URLs given by the user.
        expected_count: Number of images that the inputs hold; None if unknown.

    Raises:
        RuntimeError: The numbers of written images differ, which is a bug in this package.
        InputError: The number of images has changed since they were counted.
    """
    written_count = sum(file.rows for file in files)
    outcome_count = sum(totals.emotions.values()) + sum(totals.reasons.values())
    if outcome_count != written_count:
        raise RuntimeError(f"wrote {written_count} images, counted {outcome_count}")
    # Of a file that has become unreadable, the counted records are missing.
    is_readable = QuarantineReason.UNREADABLE not in totals.reasons
    if is_readable and expected_count not in (None, written_count):
        raise InputError(
            f"{', '.join(inputs)}: {expected_count} images were counted, and {written_count} read"
            " later; a file may have changed in between; score the input again"
        )


def _require_scored_images(
    totals: ScoringTotals, inputs: Sequence[str], min_fraction: float
) -> None:
    """Check that enough images could be scored, and at least one.

    Args:
        totals: Number of scored images by emotion, and of images without a score by reason.
        inputs: Paths or URLs given by the user.
        min_fraction: Smallest acceptable fraction of scored images, in [0, 1].

    Raises:
        InputError: Fewer images were scored.
    """
    scored_count, unscored_count = sum(totals.emotions.values()), sum(totals.reasons.values())
    image_count = scored_count + unscored_count
    if scored_count and scored_count >= min_fraction * image_count:
        return
    reasons = ", ".join(f"{reason}: {n}" for reason, n in totals.reasons.most_common())
    limit = f", less than inference.min_scored_fraction {min_fraction:g}" if scored_count else ""
    raise InputError(
        f"{', '.join(inputs)}: only {scored_count} of {image_count} images could be scored{limit}"
        f" ({reasons}); nothing was written"
    )


def _make_score_manifest(
    scorer: _Scorer,
    inference: InferenceConfig,
    totals: ScoringTotals,
    files: list[ScoreFile],
    outcomes: Sequence[str],
) -> ScoreManifest:
    """Return the content of `scores.json`.

    Args:
        scorer: Trained model and its backend.
        inference: Configuration of the inference.
        totals: Number of scored images by emotion, and of images without a score by reason.
        files: Written Parquet files.
        outcomes: Names of the classes, and "uncertain" if `inference.min_confidence` is set. The
            number of images of each is stated, even if it is 0.
    """
    return ScoreManifest(
        images=sum(file.rows for file in files),
        scored=sum(totals.emotions.values()),
        emotions={name: totals.emotions[name] for name in outcomes},
        unscored=dict(totals.reasons),
        notes=dict(totals.notes),
        files=files,
        model={"run": str(scorer.model.folder.absolute()), "sha256": scorer.model_info.sha256},
        backend=scorer.backend.to_dict(),
        flip_tta=inference.flip_tta,
        min_confidence=inference.min_confidence,
        versions=versions.collect_package_versions(*_PACKAGES),
        created=versions.format_current_time(),
    )


def format_report(scores: ScoreManifest, output: str) -> str:
    """Return the report: the number of images by emotion, and of images without a score by reason.

    Args:
        scores: Description of the scores.
        output: Folder of the scores.
    """
    rows = [[name, f"{count:,}"] for name, count in scores.emotions.items()]
    unscored_count = scores.images - scores.scored
    lines = [
        format_table(rows, None, ["left", "right"]),
        "",
        f"{scores.images:,} images found = {scores.scored:,} scored"
        f" + {unscored_count:,} not scored",
        *(f"  not scored, {reason}: {count:,}" for reason, count in scores.unscored.items()),
        f"scores {output}",
    ]
    return "\n".join(lines)
