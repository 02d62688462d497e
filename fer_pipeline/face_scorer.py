"""Emotions of the faces in photographs, from Python and without Spark.

A part of the public Python API: `from fer_pipeline import FaceScorer`. The job `score` finds,
aligns and scores faces with the same functions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.face_row import FaceRow
from fer_pipeline.data.image_decoding import DecodedFile, DecodingOptions, decode_file
from fer_pipeline.data.image_preparation import prepare_images
from fer_pipeline.errors import InputError
from fer_pipeline.extras import explain_missing_packages, require_package
from fer_pipeline.faces.blazeface import PACKAGE as DETECTOR_PACKAGE
from fer_pipeline.faces.detectors import DETECTOR_NAMES, DetectorOptions
from fer_pipeline.faces.photographs import (
    FaceMode,
    FaceOptions,
    find_faces_in_file,
    find_faces_in_image,
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

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

ImageInput = str | Path | npt.NDArray[np.uint8]
"""Path or URL of an image file, or an image: uint8 of shape (height, width) or, in RGB, (height,
width, 3)."""

_BATCH_SIZE = 256


@dataclass(frozen=True)
class ScoredFace:
    """A face and its emotion.

    Attributes:
        emotion: Emotion with the highest probability.
        confidence: This probability.
        probabilities: Probability of each emotion, by name.
        position: Position and quality of the face; None if the image is a crop of one face.
        pixels: Grey values that the model saw before it resized them, uint8 of shape (height,
            width).
    """

    emotion: str
    confidence: float
    probabilities: dict[str, float]
    position: FaceRow | None
    pixels: npt.NDArray[np.uint8] = field(repr=False)

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """Left, top, width and height in pixels of the image; None if the image is a crop."""
        return self.position and self.position[1:5]

    @property
    def quality(self) -> float | None:
        """Quality of the face, in [0, 1]; None if the image is a crop."""
        return self.position and self.position.quality


@dataclass(frozen=True)
class ScoredImage:
    """The faces of an image.

    Attributes:
        source: Path of the image; None for an array.
        faces: The faces, the most certain one first.
        reason: Why there are none, such as "no face: 640x480 pixels"; None if there are faces.
        note: A note on the image, such as "damaged image"; None if there is none.
        image: The image, as it was given.
    """

    source: str | None
    faces: tuple[ScoredFace, ...]
    reason: str | None
    note: str | None
    image: ImageInput = field(repr=False)

    def annotate(self) -> npt.NDArray[np.uint8]:
        """Return a copy of the image with boxes, emotions and bars of the probabilities.

        Returns:
            RGB, uint8 of shape (height, width, 3). Small images are enlarged.

        Raises:
            InputError: The image can no longer be read.
        """
        from fer_pipeline.faces.annotation import AnnotatedFace, draw_faces

        pixels = _read_rgb(self.image)
        classes = list(self.faces[0].probabilities) if self.faces else []
        whole = (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))
        faces = [
            AnnotatedFace(np.array(face.box or whole), np.array(list(face.probabilities.values())))
            for face in self.faces
        ]
        annotated = draw_faces(np.ascontiguousarray(pixels[..., ::-1]), faces, classes)
        return np.ascontiguousarray(annotated[..., ::-1])

    def show(self) -> Image:
        """Return the annotated picture as a `PIL.Image`, which notebooks display.

        Raises:
            InputError: The image can no longer be read.
        """
        from PIL import Image

        return Image.fromarray(self.annotate())


class ScoredImages(Sequence[ScoredImage]):
    """The results for several images, in their order."""

    def __init__(self, images: Sequence[ScoredImage]) -> None:
        """Create the sequence."""
        self._images = tuple(images)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> ScoredImage: ...
    @overload
    def __getitem__(self, index: slice) -> ScoredImages: ...
    def __getitem__(self, index: int | slice) -> ScoredImage | ScoredImages:
        """Return one of the results, or several."""
        if isinstance(index, slice):
            return ScoredImages(self._images[index])
        return self._images[index]

    @explain_missing_packages()
    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each face, and for each image without one.

        The columns are `image` (number of the image, from 0), `source`, those of `FaceRow`,
        `emotion`, `confidence`, the probabilities `p_...`, `reason` and `note`.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        import pandas as pd

        return pd.DataFrame([row for n, image in enumerate(self) for row in _list_rows(n, image)])


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
            InputError: A file does not exist.
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
        faces = []
        for decoded in file:
            if decoded.problem is None:
                face_probabilities = next(probabilities)
                faces.append(
                    ScoredFace(
                        emotion=self.classes[int(face_probabilities.argmax())],
                        confidence=float(face_probabilities.max()),
                        probabilities=dict(
                            zip(self.classes, face_probabilities.tolist(), strict=True)
                        ),
                        position=decoded.face,
                        pixels=cast(Any, decoded.image),
                    )
                )
        source = None if isinstance(image, np.ndarray) else str(image)
        problem = file[0].problem
        reason = f"{problem[0].reason}: {problem[1]}" if problem else None
        return ScoredImage(source, tuple(faces), reason, file[0].note, image)


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


def _read_rgb(image: ImageInput) -> npt.NDArray[np.uint8]:
    """Return an image in RGB, uint8 of shape (height, width, 3).

    Raises:
        InputError: It cannot be read.
    """
    if isinstance(image, np.ndarray):
        return image if image.ndim == 3 else np.repeat(image[..., np.newaxis], 3, axis=2)
    content = storage.read_bytes(parse_path(image))
    decoded = decode_file(content, DecodingOptions(keep_damaged=True), lambda *_: 1)
    if decoded.image is None:
        raise InputError(f"{image}: can no longer be read")
    return decoded.image


def _list_rows(number: int, image: ScoredImage) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table for an image."""
    start = {"image": number, "source": image.source}
    end = {"reason": image.reason, "note": image.note}
    no_position = dict.fromkeys(FaceRow._fields)
    if not image.faces:
        yield {**start, **no_position, "emotion": None, "confidence": None, **end}
    for face in image.faces:
        position = face.position._asdict() if face.position else no_position
        scores = {f"p_{name}": probability for name, probability in face.probabilities.items()}
        yield {
            **start,
            **position,
            "emotion": face.emotion,
            "confidence": face.confidence,
            **scores,
            **end,
        }
