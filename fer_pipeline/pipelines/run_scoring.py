"""The work of the score job in Spark, after the checks that need no Spark."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from fer_pipeline.data.fer_csv import RequiredColumns
from fer_pipeline.data.image_decoding import CropReader, ImageReader
from fer_pipeline.data.image_notes import log_notes
from fer_pipeline.data.outcomes import QuarantineReason
from fer_pipeline.data.score_tables import write_score_table
from fer_pipeline.data.scores import ScoreFile, ScoreManifest
from fer_pipeline.errors import InputError
from fer_pipeline.extras import suggest_install
from fer_pipeline.faces.photographs import FaceOptions, FaceReader
from fer_pipeline.io import input_reading, versions
from fer_pipeline.io.input_reading import make_listed_name
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import SCORE_TABLES
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference.predictor import PredictFn, PredictorConfig, load_predict_fn
from fer_pipeline.pipelines.score import ScoringRequest
from fer_pipeline.spark import score_images
from fer_pipeline.spark.annotate_images import AnnotationOptions, annotate_scored_images
from fer_pipeline.spark.file_kinds import warn_about_unreadable_files
from fer_pipeline.spark.find_clips import Clip, ClipFinder
from fer_pipeline.spark.input_files import open_input_files
from fer_pipeline.spark.score_clips import ClipOptions, create_clip_source
from fer_pipeline.spark.score_images import ScoringTotals
from fer_pipeline.spark.score_writer import ScoringOptions
from fer_pipeline.spark.session import SparkSession

log = logging.getLogger(__name__)

_PACKAGES = (
    "tensorflow",
    "keras",
    "ai-edge-litert",
    "pyspark",
    "opencv-python-headless",
    "pillow",
    "av",
)


def write_scores(
    spark: SparkSession, request: ScoringRequest, output_folder: OutputFolder
) -> ScoreManifest:
    """Predict the emotion of each input image, and write the scores; see `score.score`.

    Args:
        spark: Spark session.
        request: Model and inputs.
        output_folder: Folder for the scores.

    Raises:
        InputError: An input has a different format than expected, or fewer images than
            `inference.min_scored_fraction` demands could be scored.
        DatasetError: The dataset is damaged.
        StorageError: The folder cannot be written.
    """
    inputs, inference = request.inputs, request.config.inference
    load = _make_load_fn(spark, request)
    with output_folder.lock_for_writing():
        totals, expected_count = _score_inputs(spark, request, load, output_folder.path)
        files = [ScoreFile.model_validate(file) for file in totals.files]
        _check_totals(totals, files, inputs, expected_count)
        if not files:
            raise InputError(f"{', '.join(inputs)}: holds no image")
        warn_about_unreadable_files(totals.problems)
        _require_scored_images(totals, inputs, inference.min_scored_fraction)
        log_notes(totals.counts.notes)
        paths = [file.path for file in files]
        output_folder.require_files_visible(paths)
        _annotate(spark, request, [output_folder.path / path for path in paths])
        obsolete_tables = dict(SCORE_TABLES)
        if inference.format != "parquet":
            write_score_table(output_folder.path, paths, inference.format)
            del obsolete_tables[inference.format]
        scores = _make_score_manifest(request, totals, files)
        commit_content = json.dumps(scores.model_dump(), indent=2) + "\n"
        output_folder.commit(
            commit_content,
            request.config.write,
            data_files=paths,
            obsolete_files=obsolete_tables.values(),
        )
    return scores


def _annotate(spark: SparkSession, request: ScoringRequest, files: list[Path]) -> None:
    """Write annotated copies of the scored images, if they are asked for.

    Args:
        spark: Spark session.
        request: Model and inputs.
        files: Parquet files of the scores.
    """
    if request.annotate is None:
        return
    roots = tuple(
        make_listed_name(parse_path(place))
        for place in request.inputs
        if not input_reading.is_hadoop_url(place)
    )
    options = AnnotationOptions(
        str(parse_path(request.annotate).absolute()),
        roots,
        request.model.info.classes,
        request.config.input.decoding,
    )
    counts = annotate_scored_images(spark, files, options)
    log.info(
        "annotated %d images and %d clips in %s", counts.images, counts.clips, request.annotate
    )
    if counts.missing_plots:
        log.warning(
            "no plots of the emotions against time: the workers have no matplotlib; to install it:"
            " %s",
            suggest_install("matplotlib"),
        )
    if counts.missing:
        log.warning(
            "not annotated: %d scored images or clips, which are members of archives, or could not"
            " be read again",
            counts.missing,
        )


def _make_load_fn(spark: SparkSession, request: ScoringRequest) -> Callable[[], PredictFn]:
    """Send the model file to the Spark executors, and return the function with which tasks load it.

    Returns:
        A function that a Spark task calls to load the model; it returns the prediction function.
    """
    model_info, inference = request.model.info, request.config.inference
    # The content of the file is sent, because the executors may not see the model's folder.
    content = spark.sparkContext.broadcast(request.backend.content)
    settings = PredictorConfig(
        backend=request.backend.name,
        network=model_info.network,
        size=model_info.size,
        batch_size=inference.batch_size,
        threads=int(spark.conf.get("spark.task.cpus", "1") or 1),
        flip_tta=inference.flip_tta,
    )

    def load() -> PredictFn:
        """Load the broadcast model in a Spark task, and return its prediction function."""
        return load_predict_fn(content.value, settings)

    return load


def _score_inputs(
    spark: SparkSession,
    request: ScoringRequest,
    load: Callable[[], PredictFn],
    output_folder: Path,
) -> tuple[ScoringTotals, int | None]:
    """Score the input images, and write one Parquet file for each Spark task.

    Args:
        spark: Spark session.
        request: Model and inputs.
        load: Function that a Spark task calls to load the model.
        output_folder: Folder for the Parquet files.

    Returns:
        The totals of the written scores, and the number of images in the inputs. The latter is None
        if it is unknown.
    """
    model_info, config = request.model.info, request.config
    inference = config.inference
    options = ScoringOptions(
        load, model_info.classes, inference.min_confidence, inference.smoothing
    )
    clips: list[Clip] = []
    if request.dataset is not None:
        source = score_images.create_dataset_source(spark, request.dataset, model_info.size)
        expected_count: int | None = request.dataset.manifest.rows.written
    else:
        _require_readable_clips(request)
        finder = ClipFinder(spark, config.input.max_pixels, is_enabled=inference.every is not None)
        files = open_input_files(spark, request.inputs, config.input.format, finder.set_aside)
        clips = finder.clips
        if files.kind == "csv":
            _require_no_photographs(request)
        offsets, expected_count = files.compute_block_offsets()
        required = RequiredColumns(emotion=False, usage=False)
        reader = files.create_reader(required, _choose_image_reader(request))
        source = score_images.create_file_source(
            reader, offsets, model_info.size, model_info.enhancement
        )
    totals = score_images.score_source(source, options, output_folder)
    if clips:
        clip_source = create_clip_source(spark, clips, _make_clip_options(request))
        totals = totals.add(score_images.score_source(clip_source, options, output_folder))
    return totals, expected_count


def _require_readable_clips(request: ScoringRequest) -> None:
    """Check that no clips are asked for where they cannot be read.

    Raises:
        InputError: An input is read by Hadoop.
    """
    for place in request.inputs:
        if request.config.inference.every is not None and input_reading.is_hadoop_url(place):
            raise InputError(
                f"{place}: is read by Hadoop, which reads no clips; score it without --every"
            )


def _require_no_photographs(request: ScoringRequest) -> None:
    """Check that nothing is asked for that a CSV of crops does not have.

    Raises:
        InputError: Faces are to be found, or annotated copies to be written.
    """
    inputs = ", ".join(request.inputs)
    if request.annotate is not None:
        raise InputError(f"{inputs}: is a CSV; only image files are annotated")
    if request.config.inference.every is not None:
        raise InputError(f"{inputs}: is a CSV, which holds no clips; score it without --every")
    if request.face_mode == "detect":
        raise InputError(f"{inputs}: is a CSV of crops; score it with --faces crop")


def _choose_image_reader(request: ScoringRequest) -> ImageReader:
    """Return the function with which Spark's workers read an image file."""
    config = request.config
    if request.face_mode == "crop":
        return CropReader(config.input.decoding)
    return FaceReader(config.input.decoding, _make_face_options(request))


def _make_face_options(request: ScoringRequest) -> FaceOptions:
    """Return the options of the search for faces."""
    config = request.config
    return FaceOptions(
        request.face_mode,
        config.faces.detector_options,
        request.model.info.size,
        config.inference.min_quality,
    )


def _make_clip_options(request: ScoringRequest) -> ClipOptions:
    """Return the options of the scoring of clips."""
    config = request.config
    assert config.inference.every is not None
    return ClipOptions(
        config.inference.every,
        _make_face_options(request),
        config.input.max_pixels,
        request.model.info.enhancement,
    )


def _check_totals(
    totals: ScoringTotals,
    files: Sequence[ScoreFile],
    inputs: Sequence[str],
    expected_count: int | None,
) -> None:
    """Check that each image has one row and was counted once, as scored or as not scored.

    Args:
        totals: Totals of the written scores.
        files: Written Parquet files, with their numbers of rows.
        inputs: Paths or URLs given by the user.
        expected_count: Number of images that the inputs hold; None if unknown.

    Raises:
        RuntimeError: The numbers of written images differ, which is a bug in this package.
        InputError: The number of images has changed since they were counted.
    """
    counts = totals.counts
    row_count = sum(file.rows for file in files)
    outcomes = (counts.emotions, counts.reasons, counts.refused, counts.clip_reasons)
    outcome_count = sum(outcome.total() for outcome in outcomes)
    whole_count = counts.images - counts.with_faces + counts.frames - counts.frames_with_faces
    if not row_count == outcome_count == whole_count + counts.faces + counts.unreadable_clips:
        raise RuntimeError(f"wrote {row_count} rows, counted {outcome_count} in {counts}")
    # Of a file that has become unreadable, the counted records are missing.
    is_readable = QuarantineReason.UNREADABLE not in counts.reasons
    if is_readable and expected_count not in (None, counts.images):
        raise InputError(
            f"{', '.join(inputs)}: {expected_count} images were counted, and {counts.images} read"
            " later; a file may have changed in between; score the input again"
        )


def _require_scored_images(
    totals: ScoringTotals, inputs: Sequence[str], min_fraction: float
) -> None:
    """Check that enough images could be scored, and at least one.

    Args:
        totals: Totals of the written scores.
        inputs: Paths or URLs given by the user.
        min_fraction: Smallest acceptable fraction of scored images and faces, in [0, 1].

    Raises:
        InputError: Fewer were scored.
    """
    counts = totals.counts
    scored_count, reasons_counts = (
        counts.emotions.total(),
        counts.reasons + counts.refused + counts.clip_reasons,
    )
    total_count = scored_count + reasons_counts.total()
    if scored_count and scored_count >= min_fraction * total_count:
        return
    reasons = ", ".join(f"{reason}: {n}" for reason, n in reasons_counts.most_common())
    limit = f", less than inference.min_scored_fraction {min_fraction:g}" if scored_count else ""
    subjects = "images and faces" if counts.faces else "images"
    if counts.clips:
        subjects = "images, frames and faces"
    raise InputError(
        f"{', '.join(inputs)}: only {scored_count} of {total_count} {subjects} could be scored"
        f"{limit} ({reasons}); nothing was written"
    )


def _make_score_manifest(
    request: ScoringRequest, totals: ScoringTotals, files: list[ScoreFile]
) -> ScoreManifest:
    """Return the content of `scores.json`.

    Args:
        request: Model, and names that a prediction can have. The number of images of each name is
            stated, even if it is 0.
        totals: Totals of the written scores.
        files: Written Parquet files.
    """
    counts, inference = totals.counts, request.config.inference
    return ScoreManifest(
        images=counts.images,
        with_faces=counts.with_faces,
        clips=counts.clips,
        unreadable_clips=counts.unreadable_clips,
        frames=counts.frames,
        frames_with_faces=counts.frames_with_faces,
        faces=counts.faces,
        scored=counts.emotions.total(),
        emotions={name: counts.emotions[name] for name in request.outcomes},
        unscored=dict(counts.reasons),
        refused=dict(counts.refused),
        notes=dict(counts.notes),
        files=files,
        model={
            "run": str(request.model.folder.absolute()),
            "sha256": request.model.info.sha256,
        },
        backend=request.backend.to_dict(),
        detector=request.describe_detector(),
        every=inference.every,
        smoothing=inference.smoothing if inference.every is not None else 0.0,
        flip_tta=inference.flip_tta,
        min_confidence=inference.min_confidence,
        versions=versions.collect_package_versions(*_PACKAGES),
        created=versions.format_current_time(),
    )
