"""Emotions of the faces in photographs, from Python and without Spark.

A part of the public Python API: `from fer_pipeline import FaceScorer`. The job `score` finds,
aligns and scores faces with the same functions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast, overload

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.image_decoding import DecodedFile, DecodingOptions
from fer_pipeline.data.image_preparation import prepare_images
from fer_pipeline.errors import StorageError
from fer_pipeline.extras import require_package
from fer_pipeline.faces.blazeface import PACKAGE as DETECTOR_PACKAGE
from fer_pipeline.faces.clip_faces import find_faces_in_clip, link_clip_faces, smooth_tracks
from fer_pipeline.faces.detectors import DETECTOR_NAMES, DetectorOptions
from fer_pipeline.faces.photographs import (
    FaceMode,
    FaceOptions,
    find_faces_in_file,
    find_faces_in_image,
)
from fer_pipeline.faces.results import (
    ImageInput,
    ScoredClip,
    ScoredFace,
    ScoredFrame,
    ScoredImage,
    ScoredImages,
)
from fer_pipeline.io import storage
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference.backend import InferenceBackend, choose_backend
from fer_pipeline.learning.inference.predictor import (
    PredictFn,
    make_keras_predict_fn,
    make_litert_predict_fn,
)
from fer_pipeline.learning.inference.trained_model import TrainedModel

_BATCH_SIZE = 256


class FaceScorer:
    """Finds the faces of photographs, and predicts their emotions.

    `FaceScorer().score("photo.jpg").faces[0].emotion` is the emotion of the most certain face.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        detector: str = "auto",
        *,
        faces: FaceMode = "auto",
        min_confidence: float | None = None,
        min_size: int | None = None,
    ) -> None:
        """Load a model and a detector.

        Args:
            model: Folder of a finished run, or name of a bundled model; None is the default model.
            detector: Name of a detector, see `faces.detector` in the configuration; "none" takes
                each image for the crop of a face.
            faces: What the images are: "detect" for photographs, "crop" for crops of one face each,
                "auto" to decide for each image.
            min_confidence: Confidence of the detector below which a face is ignored; None is the
                detector's default.
            min_size: Height of the smallest face to find, in pixels; None depends on the image.

        Raises:
            RunError: The folder is not a finished run, or is damaged.
            ValueError: The detector has an unknown name.
            MissingPackageError: The networks of the detector are not installed.
        """
        if detector not in (*DETECTOR_NAMES, "none"):
            names = ", ".join((*DETECTOR_NAMES, "none"))
            raise ValueError(f"detector: {detector!r}; expected one of {names}")
        self._model = TrainedModel.open(model)
        backend = choose_backend(self._model, self._model.read_content(), "auto")
        self._predict = _load_predict_fn(self._model, backend)
        if detector == "none":
            faces = "crop"
        else:
            require_package(DETECTOR_PACKAGE)
        options = DetectorOptions(
            "auto" if detector == "none" else detector, min_size, min_confidence
        )
        self._options = FaceOptions(faces, options, self._model.info.size)

    @property
    def classes(self) -> list[str]:
        """Names of the emotions."""
        return self._model.info.classes

    @overload
    def score(self, images: ImageInput) -> ScoredImage: ...  # type: ignore[overload-overlap]
    @overload
    def score(self, images: Sequence[ImageInput]) -> ScoredImages: ...
    def score(self, images: ImageInput | Sequence[ImageInput]) -> ScoredImage | ScoredImages:
        """Find the faces of images, and predict their emotions.

        The faces of all images are predicted together.

        Args:
            images: Images, or a single one: paths, URLs or arrays.

        Returns:
            The result for each image, or for the single one. A file that is no usable image has no
            faces, and a reason.

        Raises:
            StorageError: A file does not exist, or cannot be read.
            ValueError: An array is no image.
        """
        if isinstance(images, str | Path | np.ndarray):
            return self.score([images])[0]
        files = [self._find_faces(image, number) for number, image in enumerate(images)]
        usable = [face for file in files for face in file if face.problem is None]
        probabilities = iter(self._predict_all([cast(Any, face.image) for face in usable]))
        return ScoredImages(
            [
                self._make_result(image, file, probabilities)
                for image, file in zip(images, files, strict=True)
            ]
        )

    def score_clip(
        self, source: str | Path, interval: float = 1.0, *, smoothing: float = 1.0
    ) -> ScoredClip:
        """Find the faces of a video or an animated image, and predict their emotions.

        The faces are linked from frame to frame, and their probabilities are smoothed, as by the
        job `score`.

        Args:
            source: Path or URL of the clip.
            interval: Time between the frames that are read, in seconds.
            smoothing: Half of the width in seconds of the window in which the probabilities of a
                face are averaged; 0 averages nothing.

        Returns:
            The result, with a reason if the clip could not be read to its end.

        Raises:
            StorageError: The file does not exist.
            MissingPackageError: The clip is a video, and PyAV is not installed.
        """
        path = parse_path(source)
        if not storage.is_file(path):
            raise StorageError(f"{source}: no such file")
        with path.open("rb") as file:
            clip_faces = list(find_faces_in_clip(cast(BinaryIO, file), interval, self._options))
        is_face = np.array([face.file.problem is None for face in clip_faces], bool)
        faces = [face for face in clip_faces if face.file.problem is None]
        probabilities = self._predict_all([cast(Any, face.file.image) for face in faces])
        tracks = [track for track in link_clip_faces(clip_faces) if track is not None]
        smoothed = smooth_tracks(
            np.array(tracks, np.int64),
            np.array([face.time for face in faces], float),
            probabilities,
            smoothing,
        )
        results = iter(zip(tracks, smoothed, strict=True))
        frames: dict[int, ScoredFrame] = {}
        reason = None
        for face, has_face in zip(clip_faces, is_face, strict=True):
            if face.frame is None or face.time is None:
                reason = cast(Any, face.file.problem)[1]
                continue
            frame = frames.setdefault(face.frame, ScoredFrame(face.frame, face.time, ()))
            if has_face:
                track, face_probabilities = next(results)
                scored = replace(self._make_face(face.file, face_probabilities), track=track)
                frames[face.frame] = replace(frame, faces=(*frame.faces, scored))
        return ScoredClip(str(source), tuple(frames.values()), reason)

    def _find_faces(self, image: ImageInput, number: int) -> list[DecodedFile]:
        """Return the faces of an image, or the image if it is a crop."""
        if isinstance(image, np.ndarray):
            _require_image(image, number)
            return find_faces_in_image(image, self._options)
        content = storage.read_bytes(parse_path(image))
        return find_faces_in_file(content, DecodingOptions(), self._options)

    def _predict_all(self, faces: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Return the probabilities of faces, float32 of shape (n, classes)."""
        model_info = self._model.info
        if not faces:
            return np.zeros((0, len(model_info.classes)), np.float32)
        selected = np.ones(len(faces), bool)
        return self._predict(
            prepare_images(faces, selected, model_info.size, model_info.enhancement)
        )

    def _make_result(
        self,
        image: ImageInput,
        file: list[DecodedFile],
        probabilities: Iterator[npt.NDArray[np.float32]],
    ) -> ScoredImage:
        """Return the result for an image.

        Args:
            image: The image.
            file: Its faces.
            probabilities: Probabilities of this image's faces and of those of the next images.
        """
        faces = [
            self._make_face(decoded, next(probabilities))
            for decoded in file
            if decoded.problem is None
        ]
        source = None if isinstance(image, np.ndarray) else str(image)
        problem = file[0].problem
        reason = f"{problem[0].reason}: {problem[1]}" if problem else None
        return ScoredImage(source, tuple(faces), reason, file[0].note, image)

    def _make_face(
        self, decoded: DecodedFile, probabilities: npt.NDArray[np.float32]
    ) -> ScoredFace:
        """Return a face with its emotion.

        Args:
            decoded: The face.
            probabilities: Its probabilities, float32 of shape (classes,).
        """
        return ScoredFace(
            emotion=self.classes[int(probabilities.argmax())],
            confidence=float(probabilities.max()),
            probabilities=dict(zip(self.classes, probabilities.tolist(), strict=True)),
            position=decoded.face,
            pixels=cast(Any, decoded.image),
        )


def _load_predict_fn(model: TrainedModel, backend: InferenceBackend) -> PredictFn:
    """Load a model in this process, whose settings of TensorFlow stay as they are."""
    if backend.name == "keras":
        return make_keras_predict_fn(model.load_network(), model.info.size, _BATCH_SIZE)
    return make_litert_predict_fn(backend.content, _BATCH_SIZE, os.cpu_count() or 1)


def _require_image(image: npt.NDArray[np.uint8], number: int) -> None:
    """Check that an array is an image.

    Raises:
        ValueError: It is not.
    """
    is_image = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if image.dtype != np.uint8 or not is_image or not image.size:
        raise ValueError(
            f"image {number}: expected uint8 of shape (height, width) or (height, width, 3), got"
            f" {image.dtype} of shape {image.shape}"
        )
