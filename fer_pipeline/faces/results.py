"""Results of scoring from Python: the faces of images and clips, with their emotions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.face_row import FaceRow
from fer_pipeline.data.image_decoding import DecodingOptions, decode_file
from fer_pipeline.errors import InputError
from fer_pipeline.extras import explain_missing_packages
from fer_pipeline.io import storage
from fer_pipeline.io.paths import parse_path

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

ImageInput = str | Path | npt.NDArray[np.uint8]
"""Path or URL of an image file, or an image: uint8 of shape (height, width) or, in RGB, (height,
width, 3)."""


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
        track: Number of the face in its clip, from 1; None outside of clips.
    """

    emotion: str
    confidence: float
    probabilities: dict[str, float]
    position: FaceRow | None
    pixels: npt.NDArray[np.uint8] = field(repr=False)
    track: int | None = None

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


@dataclass(frozen=True)
class ScoredFrame:
    """The faces of a frame of a clip.

    Attributes:
        index: Number of the sampling time, from 0.
        time: Time at which the frame appears, in seconds after the first frame.
        faces: The faces, the most certain one first.
    """

    index: int
    time: float
    faces: tuple[ScoredFace, ...]


@dataclass(frozen=True)
class ScoredClip:
    """The faces of a clip.

    Attributes:
        source: Path of the clip.
        frames: The sampled frames, in their order.
        reason: Why the clip could not be read, or not to its end; None if it was.
    """

    source: str
    frames: tuple[ScoredFrame, ...]
    reason: str | None

    @explain_missing_packages()
    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each face, and for each frame without one.

        The columns are `frame`, `time`, `track`, those of `FaceRow`, `emotion`, `confidence` and
        the probabilities `p_...`.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        import pandas as pd

        return pd.DataFrame(
            [
                {"frame": frame.index, "time": frame.time, **row}
                for frame in self.frames
                for row in _list_face_rows(frame.faces, with_track=True)
            ]
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
    for row in _list_face_rows(image.faces):
        start = {"image": number, "source": image.source}
        yield {**start, **row, "reason": image.reason, "note": image.note}


def _list_face_rows(
    faces: Sequence[ScoredFace], *, with_track: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield a row for each face, or a single one if there is none."""
    no_position = dict.fromkeys(FaceRow._fields)
    if not faces:
        no_track = {"track": None} if with_track else {}
        yield {**no_track, **no_position, "emotion": None, "confidence": None}
    for face in faces:
        track = {"track": face.track} if with_track else {}
        position = face.position._asdict() if face.position else no_position
        scores = {f"p_{name}": probability for name, probability in face.probabilities.items()}
        emotion = {"emotion": face.emotion, "confidence": face.confidence}
        yield {**track, **position, **emotion, **scores}
