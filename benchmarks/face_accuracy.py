"""Faces of FER2013 in larger pictures: how many are found, and what the model makes of them.

PublicTest's images are pasted into pictures of 400 to 900 pixels: gradients, noise, and pictures of
scikit-image without a face. They have 48 to 250 pixels, any position, and are rotated by up to 30
degrees. The found and aligned faces are scored with the model `mirrored`, and so are the images
themselves. The first figure is the position of the landmarks in FER2013's own images, for
`faces.alignment.REFERENCE`.

The environment variable FACES is the number of images.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks import data
from benchmarks.figure import Figure
from fer_pipeline.faces.alignment import REFERENCE, align_face
from fer_pipeline.faces.blazeface import BlazeFace
from fer_pipeline.faces.detection import Faces, compute_overlaps, merge_faces
from fer_pipeline.faces.detectors import DETECTOR_NAMES, DetectorOptions
from fer_pipeline.faces.photographs import find_faces
from fer_pipeline.faces.quality import measure_quality
from fer_pipeline.learning.inference.trained_model import TrainedModel

Pixels = npt.NDArray[np.uint8]

_COUNT = int(os.environ.get("FACES", "1000"))
_SIZE = 48
_BACKGROUNDS = ("coffee", "rocket", "brick", "grass", "gravel", "clock", "moon", "page")
_LOWER_CONFIDENCE = 0.35
_PHOTOS = data.ROOT.parent / "shared" / "photos"
_MATCH = 0.35
"""Overlap (intersection over union) from which on a box is a hit."""

_EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


class Scene(NamedTuple):
    """A picture with a face.

    Attributes:
        pixels: Grey values, uint8 of shape (height, width).
        center: x and y of the centre of the face, in pixels.
        side: Height and width of the pasted image, in pixels.
    """

    pixels: Pixels
    center: npt.NDArray[np.float64]
    side: float


def run() -> list[Figure]:
    """Measure the positions of the landmarks, the found faces and their accuracy."""
    training, _ = _read_images("Training")
    images, labels = _read_images("PublicTest")
    model = TrainedModel.load("mirrored")
    classes = [model.info.classes.index(name) for name in _EMOTIONS]
    targets = np.array(classes)[labels]
    figures = [*_measure_detectors(), *_measure_landmarks(training)]
    rng = np.random.default_rng(0)
    backgrounds = _load_backgrounds()
    scenes = [_paste(image, backgrounds, rng) for image in images]
    crop_labels = model.predict(images).argmax(axis=1)
    figures += _measure_quality(images, targets, model)
    for confidence in (None, _LOWER_CONFIDENCE):
        options = DetectorOptions(min_confidence=confidence)
        aligned, rows = [], []
        for row, scene in enumerate(scenes):
            faces = find_faces(scene.pixels, options)
            match = _find_match(faces, scene)
            if match is not None:
                aligned.append(align_face(scene.pixels, faces.landmarks[match], _SIZE)[0])
                rows.append(row)
        found_labels = model.predict(np.stack(aligned)).argmax(axis=1)
        aligned_accuracy = (found_labels == targets[rows]).mean()
        crop_accuracy = (crop_labels[rows] == targets[rows]).mean()
        agreement = (found_labels == crop_labels[rows]).mean()
        name = "default confidence" if confidence is None else f"faces.min_confidence {confidence}"
        figures += [
            Figure(f"faces in scenes, {name}, found", f"{len(rows) / len(images):.3f}"),
            Figure(
                "  accuracy of the aligned faces / of the images themselves",
                f"{aligned_accuracy:.3f} / {crop_accuracy:.3f}",
                "at most 0.02 less",
            ),
            Figure("  same emotion from both", f"{agreement:.3f}"),
        ]
    return figures


def _measure_detectors() -> Iterator[Figure]:
    """Yield the hits and false alarms of each detector on photographs, where they are available."""
    if not _PHOTOS.exists():
        return
    with (_PHOTOS / "faces.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in DETECTOR_NAMES:
        hit_count = box_count = 0
        for path in sorted(_PHOTOS.glob("*.jpg")):
            labelled = [
                [float(row[key]) for key in ("left", "top", "width", "height")]
                for row in rows
                if row["file"] == path.name
            ]
            pixels = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), np.uint8)
            boxes = find_faces(pixels, DetectorOptions(name)).boxes
            expected = np.array(labelled, np.float32).reshape(-1, 4)
            overlaps = compute_overlaps(expected, boxes)
            hit_count += int((overlaps.max(axis=1, initial=0) > _MATCH).sum())
            box_count += len(boxes)
        figure = f"{hit_count} found, {box_count - hit_count} false alarms"
        yield Figure(f"{len(rows)} faces in photographs, {name}", figure)


def _read_images(usage: str) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Return a sample of the images of a usage, uint8 of shape (n, 48, 48), and their labels."""
    with data.ensure_csv(1).open(encoding="ascii") as file:
        rows = [row for row in csv.DictReader(file) if row["Usage"] == usage]
    sample = np.random.default_rng(1).choice(len(rows), min(_COUNT, len(rows)), replace=False)
    pixels = [np.array(rows[row]["pixels"].split(), np.uint8) for row in sample]
    labels = np.array([int(rows[row]["emotion"]) for row in sample])
    return np.stack(pixels).reshape(-1, _SIZE, _SIZE), labels


def _measure_landmarks(images: Pixels) -> Iterator[Figure]:
    """Yield the median position and the spread of each landmark, as fractions of the image."""
    network = BlazeFace("full_range_sparse")
    border = _SIZE
    landmarks = []
    for image in images:
        framed = cv2.copyMakeBorder(image, *[border] * 4, cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        faces = merge_faces(network.find(framed, 0.5))
        if len(faces):
            landmarks.append((faces.landmarks[0] - border) / _SIZE)
    positions = np.array(landmarks)
    median = np.median(positions, axis=0)
    # Of a normal distribution, the median deviation times 1.48 is the standard deviation.
    spread = 1.48 * np.median(np.abs(positions - median), axis=0)
    yield Figure("landmarks in FER2013, found", f"{len(positions) / len(images):.3f}")
    for name, (x, y), (dx, dy) in zip(
        ("eye on the left", "eye on the right", "nose", "mouth"), median, spread, strict=True
    ):
        yield Figure(f"  {name}, x and y (spread)", f"{x:.3f} ({dx:.3f}), {y:.3f} ({dy:.3f})")


def _measure_quality(
    images: Pixels, targets: npt.NDArray[np.int64], model: TrainedModel
) -> Iterator[Figure]:
    """Yield how many images are still right after they lose pixels or sharpness.

    The figures are relative to the images as they are, for `faces.quality`.
    """
    right_count = (model.predict(images).argmax(axis=1) == targets).sum()
    for side in (32, 24, 20, 16):
        small = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images]
        labels = model.predict([np.asarray(image, np.uint8) for image in small]).argmax(axis=1)
        ratio = (labels == targets).sum() / right_count
        yield Figure(f"reduced to {side}x{side} pixels, right / as they are", f"{ratio:.2f}")
    for sigma in (0.7, 1.0, 1.5):
        blurred = np.stack([cv2.GaussianBlur(image, (0, 0), sigma) for image in images])
        labels = model.predict(blurred.astype(np.uint8)).argmax(axis=1)
        ratio = (labels == targets).sum() / right_count
        sharpness = np.median([_compute_sharpness(image) for image in blurred])
        yield Figure(
            f"blurred with sigma {sigma}, right / as they are (sharpness)",
            f"{ratio:.2f} ({sharpness:.2f})",
        )


def _compute_sharpness(image: Pixels) -> float:
    """Return the sharpness of an image, as `faces.quality` measures it."""
    return measure_quality(image, REFERENCE * _SIZE, _SIZE).sharpness


def _load_backgrounds() -> list[Pixels]:
    """Return pictures without a face, in grey."""
    import skimage.data

    pictures = [getattr(skimage.data, name)() for name in _BACKGROUNDS]
    return [
        picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        for picture in pictures
    ]


def _paste(image: Pixels, backgrounds: list[Pixels], rng: np.random.Generator) -> Scene:
    """Return a scene with an image in it."""
    width, height = (int(side) for side in rng.integers(400, 900, 2))
    kind = int(rng.integers(4))
    if kind == 0:
        row = np.linspace(*rng.integers(0, 255, 2), width)
        pixels = np.tile(row, (height, 1)).astype(np.uint8)
    elif kind == 1:
        pixels = rng.integers(0, 256, (height, width)).astype(np.uint8)
    else:
        background = backgrounds[int(rng.integers(len(backgrounds)))]
        pixels = np.asarray(cv2.resize(background, (width, height)), np.uint8).copy()
    side = min(float(np.exp(rng.uniform(np.log(48), np.log(250)))), 0.7 * min(width, height))
    matrix = cv2.getRotationMatrix2D((23.5, 23.5), float(rng.uniform(-30, 30)), side / _SIZE)
    # The side of the square around the rotated image.
    extent = int(side * 1.45)
    left, top = int(rng.integers(width - extent)), int(rng.integers(height - extent))
    matrix[:, 2] += extent / 2 - 0.5 - 23.5
    rotated = cv2.warpAffine(image, matrix, (extent, extent))
    mask = cv2.warpAffine(np.ones_like(image), matrix, (extent, extent), flags=cv2.INTER_NEAREST)
    part = pixels[top : top + extent, left : left + extent]
    part[mask > 0] = rotated[mask > 0]
    return Scene(pixels, np.array([left + extent / 2, top + extent / 2]), side)


def _find_match(faces: Faces, scene: Scene) -> int | None:
    """Return the number of the face that was pasted into a scene; None if it was not found."""
    centers = faces.boxes[:, :2] + faces.boxes[:, 2:] / 2
    heights = faces.boxes[:, 3] / scene.side
    distances = np.hypot(*(centers - scene.center).T) / scene.side
    matches = np.flatnonzero((distances < 0.35) & (heights > 0.45) & (heights < 1.6))
    return int(matches[0]) if len(matches) else None


if __name__ == "__main__":
    for figure in run():
        print(f"{figure.name:<66} {figure.measurement:<24} {figure.goal}".rstrip())
