"""Tracks: faces of a clip linked from frame to frame, and probabilities smoothed along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_pipeline.faces.detection import Points, compute_overlaps

Values = npt.NDArray[np.float64]
TrackNumbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrackingOptions:
    """Options that decide whether two faces of different frames are one.

    Attributes:
        min_overlap: Smallest overlap (intersection over union) of their boxes, in (0, 1].
        max_gap: Longest time in seconds for which a face may be missing. A face of the frame
            directly before is never too old, however long that frame is shown.
    """

    min_overlap: float = 0.2
    max_gap: float = 1.0


@dataclass
class _Track:
    """A face that was seen in one or more frames.

    Attributes:
        number: Number of the track.
        frame: Number of the frame in which it was seen last.
        time: Time of that frame in seconds.
        box: Box in that frame: left, top, width and height.
        velocity: Movement of the left upper corner in pixels per second.
    """

    number: int
    frame: int
    time: float
    box: Points
    velocity: Points

    def predict(self, time: float) -> Points:
        """Return the box at a time if the face keeps moving as it did."""
        box = self.box.copy()
        box[:2] += self.velocity * np.float32(time - self.time)
        return box

    def update(self, frame: int, time: float, box: Points) -> None:
        """Add the box of a frame."""
        self.velocity = (_find_center(box) - _find_center(self.box)) / np.float32(time - self.time)
        self.frame, self.time, self.box = frame, time, box


def link_faces(
    times: Sequence[float],
    boxes: Sequence[Points],
    options: TrackingOptions = TrackingOptions(),
) -> list[TrackNumbers]:
    """Return the number of the track of each face.

    In each frame, the pair of a track and a face that overlap most is linked, then the best of the
    remaining pairs, and so on. A track is expected where it would be if it kept moving as between
    its last two frames, so that faces which cross keep their tracks. Tracks that find no face there
    are then looked for where they were seen last. A face without a track begins a new one. The
    order of the faces within a frame has no influence on the tracks.

    Args:
        times: Times of the n frames in seconds, strictly increasing.
        boxes: Boxes of each frame (left, top, width, height), float32 of shape (faces, 4).
        options: Options that decide whether two faces are one.

    Returns:
        Arrays of shape (faces,) for each frame. Tracks are numbered from 1 on in the order in which
        they begin; those that begin in the same frame, from left to right.
    """
    active: list[_Track] = []
    numbers: list[TrackNumbers] = []
    count = 0
    for frame, (time, frame_boxes) in enumerate(zip(times, boxes, strict=True)):
        active = [
            track
            for track in active
            if track.frame == frame - 1 or time - track.time <= options.max_gap
        ]
        links = _match(active, frame_boxes, time, options.min_overlap)
        for face in np.lexsort(frame_boxes.T[::-1]):
            box = frame_boxes[face]
            if face in links:
                links[face].update(frame, time, box)
                continue
            count += 1
            links[face] = _Track(count, frame, time, box, np.zeros(2, np.float32))
            active.append(links[face])
        ordered = [links[face].number for face in range(len(frame_boxes))]
        numbers.append(np.array(ordered, np.int64))
    return numbers


def _match(
    tracks: Sequence[_Track], boxes: Points, time: float, min_overlap: float
) -> dict[int, _Track]:
    """Return the track of each face that belongs to one, by the row of the face.

    Args:
        tracks: Tracks that may have a face in the frame.
        boxes: Boxes of the frame, float32 of shape (faces, 4).
        time: Time of the frame in seconds.
        min_overlap: Smallest overlap of a pair.
    """
    links: dict[int, _Track] = {}
    free = list(tracks)
    for expected in ([track.predict(time) for track in tracks], [track.box for track in tracks]):
        if not len(boxes) or not free:
            return links
        positions = dict(zip((track.number for track in tracks), expected, strict=True))
        overlaps = compute_overlaps(np.stack([positions[t.number] for t in free]), boxes)
        rows, faces = np.nonzero(overlaps >= min_overlap)
        pairs = sorted(
            zip(rows.tolist(), faces.tolist(), strict=True),
            # The box decides between equal overlaps, because the rows have no meaning.
            key=lambda pair: (-overlaps[pair], free[pair[0]].number, boxes[pair[1]].tolist()),
        )
        linked: set[int] = set()
        for row, face in pairs:
            if face not in links and row not in linked:
                links[face] = free[row]
                linked.add(row)
        free = [track for row, track in enumerate(free) if row not in linked]
    return links


def _find_center(box: Points) -> Points:
    """Return the centre of a box, float32 of shape (2,)."""
    return box[:2] + box[2:] / np.float32(2)


def smooth_probabilities(times: Values, probabilities: Values, half_width: float) -> Values:
    """Smooth the probabilities of one track.

    Each row becomes the weighted mean of the rows around it. The weight of a row at a distance of d
    seconds is the Hann window, `(1 + cos(pi * d / half_width)) / 2` for d < half_width and else 0.
    It depends on the times and not on the numbers of the frames, and it is the same before and
    after. The weights are divided by their sum, also at the ends of the track.

    Args:
        times: Times in seconds, increasing, float64 of shape (n,).
        probabilities: Probabilities of the classes, float64 of shape (n, classes).
        half_width: Half of the width of the window in seconds; 0 smooths nothing.

    Returns:
        float64 of shape (n, classes), each row with the sum 1.
    """
    smoothed = np.array(probabilities, np.float64)
    if half_width > 0:
        # Rows at the edges have no weight, so that rounding of the times does not matter.
        starts = np.searchsorted(times, times - half_width, "left")
        stops = np.searchsorted(times, times + half_width, "right")
        for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            distances = np.minimum(np.abs(times[start:stop] - times[row]) / half_width, 1)
            weights = (1 + np.cos(np.pi * distances)) / 2
            smoothed[row] = weights @ probabilities[start:stop] / weights.sum()
    return smoothed / smoothed.sum(axis=1, keepdims=True)
