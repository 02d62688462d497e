"""Scoring of images with a trained model: an emotion and its probabilities for each image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fer_pipeline.config import Config
from fer_pipeline.config.schema import InferenceConfig
from fer_pipeline.data.dataset import StoredDataset, find_dataset, is_dataset
from fer_pipeline.data.scores import UNCERTAIN, ScoreManifest
from fer_pipeline.errors import InputError, RunError, StorageError
from fer_pipeline.extras import is_installed, require_package, suggest_install
from fer_pipeline.faces.blazeface import PACKAGE as DETECTOR_PACKAGE
from fer_pipeline.faces.clips import VIDEO_SUFFIXES
from fer_pipeline.faces.detectors import describe_detector
from fer_pipeline.faces.photographs import FaceMode
from fer_pipeline.io import input_listing, storage
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import SCORES
from fer_pipeline.io.paths import is_local, parse_path
from fer_pipeline.learning.inference import backend
from fer_pipeline.learning.inference.backend import InferenceBackend
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.text import format_table

if TYPE_CHECKING:
    from fer_pipeline.spark.session import SparkSession


log = logging.getLogger(__name__)

_INSTALL_DETECTOR = suggest_install(DETECTOR_PACKAGE)


@dataclass(frozen=True)
class ScoringRequest:
    """A model that has passed all checks, and what it is to score.

    Attributes:
        model: Trained model.
        backend: Backend that runs the model, and the content of its model file.
        inputs: Paths or URLs, as the user gave them.
        dataset: Dataset to score; None if other inputs are scored.
        outcomes: Names that a prediction can have: the classes, and "uncertain" if
            `inference.min_confidence` is set.
        face_mode: Whether faces are searched for in image files.
        config: Configuration; only `faces`, `inference` and the part of `input` about files are
            used.
        annotate: Folder for annotated copies of the images; None to draw none.
    """

    model: TrainedModel
    backend: InferenceBackend
    inputs: Sequence[str]
    dataset: StoredDataset | None
    outcomes: Sequence[str]
    face_mode: FaceMode
    config: Config
    annotate: str | None = None

    def describe_detector(self) -> dict[str, str] | None:
        """Return the name and the checksum of the detector; None if no faces are searched for."""
        is_crop = self.face_mode == "crop" and self.config.inference.every is None
        if is_crop or self.dataset is not None:
            return None
        return describe_detector(self.config.faces.detector_options)


def score(
    open_session: Callable[[], AbstractContextManager[SparkSession]],
    model: str | None,
    inputs: Sequence[str],
    output: str,
    config: Config,
    *,
    annotate: str | None = None,
    overwrite: bool = False,
) -> ScoreManifest:
    """Predict the emotion of each input image, and write the scores.

    The scores of an image are the predicted emotion and the probability of each class.
    `scores.json` is written last. It lists the Parquet files of the scores; other files in the
    folder are not part of the scores.

    Args:
        open_session: Function that returns the context manager of a Spark session. It is called
            only after the checks that need no Spark.
        model: Folder of a finished run, or name of a bundled model; None is the default model.
        inputs: Paths or URLs of image folders, of CSV files, or of a single dataset.
        output: Folder for the scores.
        config: Configuration; only `inference` and the part of `input` about files are used.
        annotate: Folder for annotated copies of the images; None to draw none.
        overwrite: Whether existing scores, and files in `annotate`, may be replaced.

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
    if annotate is not None:
        _check_annotation_folder(annotate, output_folder.path, overwrite=overwrite)
        if config.inference.every is not None:
            _require_clip_writer(annotate)
    request = replace(_open_request(model, inputs, config), annotate=annotate)
    if annotate is not None and request.dataset is not None:
        raise InputError(f"{request.dataset.folder}: is a dataset; only image files are annotated")
    # This imports Spark, which takes a second, as its start does.
    from fer_pipeline.pipelines import run_scoring

    with open_session() as spark:
        return run_scoring.write_scores(spark, request, output_folder)


def _open_request(model_name: str | None, inputs: Sequence[str], config: Config) -> ScoringRequest:
    """Open the model and choose its backend, and check the inputs as far as Spark is not needed.

    Args:
        model_name: Folder of a finished run, or name of a bundled model; None is the default model.
        inputs: Paths or URLs of image folders, of CSV files, or of a single dataset.
        config: Configuration.
    """
    model = TrainedModel.open(model_name)
    outcomes = _list_possible_predictions(model, config.inference)
    dataset = None
    # A dataset can only be scored alone; any other input is a folder of images or a CSV file.
    if len(inputs) == 1 and is_dataset(inputs[0]):
        dataset = StoredDataset.open(inputs[0])
        dataset.require_all_files()
        dataset.require_enhancement(model.info.enhancement)
    else:
        # A single input was looked at above.
        other_dataset = find_dataset(inputs) if len(inputs) > 1 else None
        if other_dataset is not None:
            raise InputError(
                f"{other_dataset}: is a dataset, which is scored alone; name nothing else"
            )
        input_listing.require_local_inputs(inputs)
    inference_backend = backend.choose_backend(
        model, model.read_content(), config.inference.backend
    )
    if config.inference.every is not None:
        _require_clip_packages(inputs, dataset)
    face_mode = _choose_face_mode(config, dataset)
    return ScoringRequest(model, inference_backend, inputs, dataset, outcomes, face_mode, config)


def _check_annotation_folder(annotate: str, output: Path, *, overwrite: bool) -> None:
    """Check that annotated copies may be written to a folder.

    Raises:
        StorageError: The folder is that of the scores, is not empty although nothing may be
            replaced, or cannot be written.
    """
    folder = parse_path(annotate).absolute()
    if folder == output or output in folder.parents:
        raise StorageError(f"{folder}: is in the folder of the scores; choose another folder")
    storage.require_writable(folder)
    if not overwrite and storage.is_folder(folder) and any(folder.iterdir()):
        raise StorageError(f"{folder}: is not empty; choose another folder, or add --overwrite")


def _require_clip_writer(annotate: str) -> None:
    """Check that annotated copies of clips can be written to a folder.

    Raises:
        StorageError: The folder is the URL of a filesystem.
        MissingPackageError: PyAV is not installed.
    """
    require_package("av")
    if not is_local(parse_path(annotate)):
        raise StorageError(f"{annotate}: is a URL; clips are annotated in a local folder only")


def _choose_face_mode(config: Config, dataset: StoredDataset | None) -> FaceMode:
    """Return whether faces are searched for; without a detector, the images are taken for crops.

    Raises:
        InputError: Faces are to be found in a dataset.
        MissingPackageError: Faces are to be found, and the detector is not installed.
    """
    mode = config.inference.faces
    if mode == "detect":
        if dataset is not None:
            raise InputError(
                f"{dataset.folder}: is a dataset, which holds crops; score it with --faces crop"
            )
        require_package(DETECTOR_PACKAGE)
    elif mode == "auto" and not is_installed(DETECTOR_PACKAGE):
        log.info("all images are taken for crops; to find faces: %s", _INSTALL_DETECTOR)
        return "crop"
    return mode


def _require_clip_packages(inputs: Sequence[str], dataset: StoredDataset | None) -> None:
    """Check that faces can be found in frames of clips.

    Args:
        inputs: Paths or URLs, as the user gave them.
        dataset: Dataset to score; None if other inputs are scored.

    Raises:
        InputError: The input is a dataset, which holds no clips.
        MissingPackageError: The detector is not installed; or an input is a video, and PyAV is not
            installed. Videos in folders are found later.
    """
    if dataset is not None:
        raise InputError(
            f"{dataset.folder}: is a dataset, which holds no clips; score it without --every"
        )
    require_package(DETECTOR_PACKAGE)
    if any(place.lower().endswith(VIDEO_SUFFIXES) for place in inputs):
        require_package("av")


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


def format_report(scores: ScoreManifest, output: str) -> str:
    """Return the report: the number of images by emotion, and of images without a score by reason.

    Args:
        scores: Description of the scores.
        output: Folder of the scores.
    """
    rows = [[name, f"{count:,}"] for name, count in scores.emotions.items()]
    lines = [
        format_table(rows, None, ["left", "right"]),
        "",
        *_format_books(scores),
        f"scores {output}",
    ]
    return "\n".join(lines)


def _format_books(scores: ScoreManifest) -> list[str]:
    """Return what became of each image, of each clip and frame, and of each face."""
    refused_count = sum(scores.refused.values())
    lines = [] if scores.clips and not scores.images else _format_images(scores)
    lines += _format_clips(scores) if scores.clips else []
    if scores.faces:
        parts = [f"{scores.faces - refused_count:,} scored", f"{refused_count:,} refused"]
        lines.append(f"{scores.faces:,} faces = {' + '.join(parts)}")
        lines += [f"  refused, {reason}: {count:,}" for reason, count in scores.refused.items()]
    return lines


def _format_images(scores: ScoreManifest) -> list[str]:
    """Return what became of each still image."""
    unscored_count = sum(scores.unscored.values())
    crop_count = scores.images - scores.with_faces - unscored_count
    parts = [f"{crop_count:,} scored", f"{unscored_count:,} not scored"]
    if scores.with_faces:
        parts[:1] = [f"{scores.with_faces:,} with faces", f"{crop_count:,} scored as crops"]
    return [
        f"{scores.images:,} images found = {' + '.join(parts)}",
        *(f"  not scored, {reason}: {count:,}" for reason, count in scores.unscored.items()),
    ]


def _format_clips(scores: ScoreManifest) -> list[str]:
    """Return how many clips could be read, and what became of each sampled frame."""
    clips = "1 clip" if scores.clips == 1 else f"{scores.clips:,} clips"
    frames = "1 frame" if scores.frames == 1 else f"{scores.frames:,} frames"
    without_count = scores.frames - scores.frames_with_faces
    lines = [
        f"{clips}, {frames} = {scores.frames_with_faces:,} with faces"
        f" + {without_count:,} not scored",
    ]
    if scores.unreadable_clips:
        lines.append(f"  not read, or not to their end: {scores.unreadable_clips:,} clips")
    return lines
