"""Annotated videos, read back."""

import io
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from fer_pipeline.data.emotions import FER2013
from fer_pipeline.errors import StorageError, UnreadableFileError
from fer_pipeline.faces.annotation import draw_faces, find_scale
from fer_pipeline.faces.clip_video import (
    SampledFaces,
    interpolate_faces,
    write_annotated_video,
)
from fer_pipeline.faces.clips import read_clip_facts, read_frames
from tests.helpers.clips import ENCODINGS, encode_animation, encode_video, make_pictures

HAPPY = np.array([0.01, 0.02, 0.03, 0.83, 0.04, 0.05, 0.02])
SAD = np.array([0.01, 0.02, 0.03, 0.04, 0.83, 0.05, 0.02])


def make_sample(
    time: float, tracks: list[int], boxes: list[list[float]], rows: list[np.ndarray]
) -> SampledFaces:
    return SampledFaces(
        time,
        np.array(tracks, np.int64),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(rows, np.float64).reshape(-1, 7),
    )


SAMPLES = [
    make_sample(0.0, [1], [[100, 60, 80, 80]], [HAPPY]),
    make_sample(0.4, [1, 2], [[120, 70, 90, 90], [10, 10, 40, 40]], [SAD, HAPPY]),
    make_sample(0.8, [1], [[140, 80, 100, 100]], [SAD]),
]


class TestInterpolateFaces:
    def test_a_track_moves_evenly_between_two_samples(self):
        (face,) = interpolate_faces(SAMPLES, 0.1)
        np.testing.assert_allclose(face.box, [105, 62.5, 82.5, 82.5], rtol=1e-6)
        assert face.probabilities == pytest.approx(0.75 * HAPPY + 0.25 * SAD)

    def test_a_sample_is_itself(self):
        first, second = interpolate_faces(SAMPLES, 0.4)
        np.testing.assert_allclose([first.box, second.box], SAMPLES[1].boxes)
        assert second.probabilities == pytest.approx(HAPPY)

    def test_a_track_that_ends_stays_until_the_next_sample(self):
        assert [len(interpolate_faces(SAMPLES, time)) for time in (0.39, 0.41, 0.79, 0.8)] == [
            1,
            2,
            2,
            1,
        ]
        np.testing.assert_allclose(interpolate_faces(SAMPLES, 0.79)[1].box, [10, 10, 40, 40])

    def test_all_stay_after_the_last_sample_and_none_is_before_the_first(self):
        np.testing.assert_allclose(interpolate_faces(SAMPLES, 9)[0].box, [140, 80, 100, 100])
        assert interpolate_faces(SAMPLES[1:], 0.2) == []
        assert interpolate_faces([], 1) == []

    def test_a_face_without_probabilities_has_none(self):
        nothing = np.full(7, np.nan)
        samples = [
            make_sample(0, [1], [[0, 0, 10, 10]], [nothing]),
            make_sample(1, [1], [[0, 0, 10, 10]], [HAPPY]),
            make_sample(2, [1], [[0, 0, 10, 10]], [nothing]),
        ]
        assert interpolate_faces(samples, 0.5)[0].probabilities is None
        assert interpolate_faces(samples, 1.5)[0].probabilities == pytest.approx(HAPPY)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return make_pictures(25, (320, 240))


def check_pictures(path: Path, pictures: list[np.ndarray], samples: list[SampledFaces]) -> None:
    """Check that a video shows the annotated pictures, in their colours."""
    frames = list(read_frames(path))
    assert len(frames) == len(pictures)
    for frame, picture in zip(frames, pictures, strict=True):
        expected = draw_faces(picture, interpolate_faces(samples, frame.time), FER2013)
        assert frame.pixels.shape == expected.shape
        difference = frame.pixels.astype(int) - expected
        assert np.abs(difference).mean() < 8
        assert np.abs(difference.mean(axis=(0, 1))).max() < 1


class TestWriteAnnotatedVideo:
    def test_it_shows_all_frames_with_their_faces(self, pictures, tmp_path):
        source = tmp_path / "clip.mp4"
        source.write_bytes(encode_video(pictures, ENCODINGS["h264.mp4"]))
        written = write_annotated_video(source, SAMPLES, FER2013, tmp_path / "clip.webm")
        assert (written.frame_count, written.problem) == (25, None)
        shown_pictures = [frame.pixels for frame in read_frames(source)]
        check_pictures(tmp_path / "clip.webm", shown_pictures, SAMPLES)
        facts = read_clip_facts(tmp_path / "clip.webm")
        assert facts.duration == pytest.approx(1.0, abs=0.002)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "clip.webm"]

    def test_it_is_vp9_in_webm_with_the_colors_stated(self, pictures, tmp_path):
        content = encode_video(pictures[:3], ENCODINGS["h264.mp4"])
        write_annotated_video(io.BytesIO(content), [], FER2013, tmp_path / "clip.webm")
        with av.open(str(tmp_path / "clip.webm")) as container:
            assert len(container.streams) == 1
            stream = container.streams.video[0]
            assert container.format.name == "matroska,webm"
            assert stream.codec_context.name in ("vp9", "libvpx-vp9")
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert stream.codec_context.colorspace == 1  # BT.709

    def test_the_times_are_those_of_the_clip(self, pictures, tmp_path):
        times = [3000, 3007, 3100, 3133, 3500, 4100, 4133, 4200]
        content = encode_video(pictures[:8], ENCODINGS["vp9.webm"], times=times)
        write_annotated_video(io.BytesIO(content), SAMPLES, FER2013, tmp_path / "clip.webm")
        frames = list(read_frames(tmp_path / "clip.webm"))
        np.testing.assert_allclose(
            [frame.time for frame in frames], (np.array(times) - 3000) / 1000, atol=1e-6
        )

    def test_frames_within_a_millisecond_keep_their_order(self, tmp_path):
        content = encode_video(make_pictures(20, (64, 48)), ENCODINGS["h264.mp4"], rate=3000)
        write_annotated_video(io.BytesIO(content), [], FER2013, tmp_path / "clip.webm")
        times = [frame.time for frame in read_frames(tmp_path / "clip.webm")]
        assert len(times) == 20
        assert all(after > before for before, after in pairwise(times))

    @pytest.mark.parametrize("size", [(321, 241), (101, 77), (640, 33)])
    def test_odd_and_small_sizes(self, size, tmp_path):
        pictures = make_pictures(2, size)
        content = encode_animation(pictures, "PNG", 100)
        write_annotated_video(io.BytesIO(content), [], FER2013, tmp_path / "clip.webm")
        scale = find_scale(*size)
        shapes = [frame.pixels.shape for frame in read_frames(tmp_path / "clip.webm")]
        assert shapes == [(size[1] * scale, size[0] * scale, 3)] * 2

    def test_a_damaged_clip_is_written_as_far_as_it_can_be_read(self, pictures, tmp_path):
        content = encode_video(pictures, ENCODINGS["vp9.webm"])
        written = write_annotated_video(
            io.BytesIO(content[: len(content) // 2]), [], FER2013, tmp_path / "clip.webm"
        )
        assert 5 < written.frame_count < 25
        assert written.problem is not None
        assert len(list(read_frames(tmp_path / "clip.webm"))) == written.frame_count

    def test_what_is_no_clip_leaves_the_file_as_it_was(self, tmp_path):
        path = tmp_path / "clip.webm"
        path.write_text("before")
        with pytest.raises(UnreadableFileError, match="not a video"):
            write_annotated_video(io.BytesIO(b"text" * 9), [], FER2013, path)
        assert path.read_text() == "before"
        assert [file.name for file in tmp_path.iterdir()] == ["clip.webm"]

    def test_a_path_that_cannot_be_written_is_a_storage_error(self, pictures, tmp_path):
        (tmp_path / "file").write_text("")
        content = encode_animation(pictures[:1], "GIF", 100)
        with pytest.raises(StorageError):
            write_annotated_video(io.BytesIO(content), [], FER2013, tmp_path / "file" / "a.webm")
