"""Frames of clips: which ones, at which times, with which pixels, and what is said about damage."""

import io
import resource
import struct
from itertools import accumulate
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from fer_pipeline.errors import UnreadableFileError
from fer_pipeline.faces.clips import (
    Segment,
    plan_segments,
    read_clip_facts,
    read_frames,
    sample_frames,
)
from tests.helpers.clips import (
    ENCODINGS,
    Encoding,
    describe_frames,
    encode_animation,
    encode_sound,
    encode_video,
    make_pictures,
    read_samples,
)

COUNT = 40
VARIABLE_DURATIONS = [7, 40, 33, 200, 121, 15, 60, 90] * 5
VARIABLE_TIMES = [5000, *accumulate(VARIABLE_DURATIONS[:-1], initial=5000)][1:]
WITH_TIMES = sorted(name for name in ENCODINGS if not name.endswith(".avi"))
H264 = sorted(name for name in ENCODINGS if name.startswith("h264") and "refresh" not in name)
ANIMATIONS = {"gif": "GIF", "png": "PNG", "webp": "WEBP"}


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return make_pictures(COUNT)


@pytest.fixture(scope="module")
def videos(pictures) -> dict[str, bytes]:
    """Videos at 25 frames per second, by the name of their encoding."""
    return {name: encode_video(pictures, encoding) for name, encoding in ENCODINGS.items()}


def find_nearest(frame: np.ndarray, pictures: list[np.ndarray]) -> int:
    """Return the number of the picture that is most similar to a frame."""
    differences = [np.abs(frame.astype(int) - picture).mean() for picture in pictures]
    assert min(differences) < 12  # the encoders lose some details
    return int(np.argmin(differences))


def select_slowly(starts: list[float], end: float, interval: float) -> list[int]:
    """Return the numbers of the frames that are shown at some multiple of the interval."""
    numbers: list[int] = []
    step = 0
    while step * interval < end - 1e-9:
        number = max(i for i, start in enumerate(starts) if start <= step * interval + 1e-9)
        if number not in numbers:
            numbers.append(number)
        step += 1
    return numbers


def read_in_segments(content: bytes, interval: float, size: int) -> list[tuple]:
    """Return the frames of all segments of a clip, each of `size` sampling times."""
    stop = max((frame.index for frame in read_samples(content, interval)[0]), default=0) + 1
    segments = [Segment(start, start + size) for start in range(0, stop, size)]
    segments.append(Segment(segments[-1].stop or 0))
    frames = [frame for s in segments for frame in read_samples(content, interval, s)[0]]
    return describe_frames(frames)


class TestVideos:
    @pytest.mark.parametrize("name", sorted(ENCODINGS))
    def test_all_frames_are_read_in_their_order(self, videos, pictures, name):
        frames = list(read_frames(io.BytesIO(videos[name])))
        assert [find_nearest(frame.pixels, pictures) for frame in frames] == list(range(COUNT))
        np.testing.assert_allclose([f.time for f in frames], np.arange(COUNT) / 25, atol=1e-9)
        np.testing.assert_allclose([f.end for f in frames], (np.arange(COUNT) + 1) / 25, atol=1e-9)
        assert {frame.pixels.shape for frame in frames} == {(80, 96, 3)}
        assert {frame.pixels.dtype for frame in frames} == {np.dtype(np.uint8)}

    @pytest.mark.parametrize("name", sorted(ENCODINGS))
    @pytest.mark.parametrize(("interval", "size"), [(0.01, 25), (0.13, 1), (0.2, 3)])
    def test_segments_have_exactly_the_frames_of_one_pass(self, videos, name, interval, size):
        frames, problem = read_samples(videos[name], interval)
        assert problem is None
        starts = [number / 25 for number in range(COUNT)]
        numbers = select_slowly(starts, COUNT / 25, interval)
        assert [round(frame.time * 25) for frame in frames] == numbers
        assert read_in_segments(videos[name], interval, size) == describe_frames(frames)

    @pytest.mark.parametrize("name", WITH_TIMES)
    def test_times_may_be_irregular_and_begin_late(self, pictures, name):
        content = encode_video(pictures, ENCODINGS[name], times=VARIABLE_TIMES)
        starts = [(time - VARIABLE_TIMES[0]) / 1000 for time in VARIABLE_TIMES]
        frames = list(read_frames(io.BytesIO(content)))
        np.testing.assert_allclose([frame.time for frame in frames], starts, atol=1e-9)
        for interval, size in ((0.05, 7), (0.5, 1)):
            samples, problem = read_samples(content, interval)
            assert problem is None
            numbers = [starts.index(round(frame.time, 6)) for frame in samples]
            assert numbers == select_slowly(starts, frames[-1].end, interval)
            assert [find_nearest(f.pixels, pictures) for f in samples] == numbers
            assert read_in_segments(content, interval, size) == describe_frames(samples)

    def test_a_frame_that_serves_several_times_is_read_once(self, pictures):
        content = encode_video(pictures[:3], ENCODINGS["vp9.webm"], times=[0, 1000, 3000])
        frames, _ = read_samples(content, 0.25)
        assert [(frame.index, frame.time) for frame in frames] == [(0, 0), (4, 1), (12, 3)]
        assert [read_samples(content, 0.25, Segment(k, k + 1))[0] for k in (1, 3, 5, 11)] == [
            []
        ] * 4

    def test_a_tenth_of_a_second_is_exact(self, pictures):
        content = encode_video(pictures[:11], ENCODINGS["mjpeg.avi"], rate=10)
        frames, _ = read_samples(content, 0.1)
        assert [frame.index for frame in frames] == list(range(11))

    def test_an_edit_list_hides_the_frames_before_its_start(self, videos, pictures):
        content = bytearray(videos["h264.mp4"])
        position = content.index(b"elst") + 12
        duration, start = struct.unpack_from(">ii", content, position)
        # The units are milliseconds for the duration, and 1/12800 s for the start.
        struct.pack_into(">ii", content, position, duration - 13 * 40, start + 13 * 512)
        frames, problem = read_samples(bytes(content), 0.04)
        assert problem is None
        assert [find_nearest(frame.pixels, pictures) for frame in frames] == list(range(13, 40))
        assert [frame.index for frame in frames] == list(range(27))
        assert read_in_segments(bytes(content), 0.04, 5) == describe_frames(frames)

    @pytest.mark.parametrize("rotation", [0, 90, 180, 270])
    @pytest.mark.parametrize("mirrored", [False, True])
    def test_rotation_and_mirroring_are_applied(self, pictures, rotation, mirrored):
        encoding = Encoding("mp4", "libx264", {"crf": "10"}, {}, rotation, mirrored)
        content = encode_video(pictures[:2], encoding)
        # The display matrix rotates first, and mirrors then.
        expected = np.rot90(pictures[0], rotation // 90)
        expected = expected[:, ::-1] if mirrored else expected
        frame = next(read_frames(io.BytesIO(content)))
        assert frame.pixels.shape == expected.shape
        assert np.abs(frame.pixels.astype(int) - expected).mean() < 8
        facts = read_clip_facts(io.BytesIO(content))
        assert (facts.height, facts.width) == expected.shape[:2]

    def test_pixels_that_are_not_square_are_stretched(self, pictures):
        options = {"x264-params": "sar=4/3"}
        content = encode_video(pictures[:2], Encoding("mp4", "libx264", options))
        assert next(read_frames(io.BytesIO(content))).pixels.shape == (80, 128, 3)

    @pytest.mark.parametrize("name", ["h264.mp4", "vp9.webm", "mjpeg.avi"])
    def test_a_clip_of_one_frame(self, pictures, name):
        content = encode_video(pictures[:1], ENCODINGS[name])
        frames, problem = read_samples(content, 0.5)
        assert ([(frame.index, frame.time) for frame in frames], problem) == ([(0, 0)], None)
        assert read_samples(content, 0.5, Segment(1)) == ([], None)

    def test_odd_sizes(self):
        pictures = make_pictures(2, (61, 47))
        content = encode_video(pictures, ENCODINGS["vp9.webm"])
        assert [frame.pixels.shape for frame in read_frames(io.BytesIO(content))] == [
            (47, 61, 3)
        ] * 2


class TestFacts:
    @pytest.mark.parametrize("name", sorted(ENCODINGS))
    def test_they_are_those_of_the_header(self, videos, name):
        facts = read_clip_facts(io.BytesIO(videos[name]))
        assert (facts.width, facts.height) == (96, 80)
        assert facts.frame_rate == pytest.approx(25)
        assert facts.duration == (None if "live" in name else pytest.approx(1.6))
        # The times of an AVI file with reordered frames are known only from its start on.
        assert facts.can_seek == (name not in ("h264.avi", "mpeg4_b_frames.avi"))

    def test_animations_have_none(self, pictures):
        facts = read_clip_facts(io.BytesIO(encode_animation(pictures[:3], "GIF", 100)))
        assert (facts.width, facts.height, facts.duration, facts.can_seek) == (96, 80, None, False)

    def test_segments_cover_the_clip_and_the_last_one_is_open(self, videos):
        facts = read_clip_facts(io.BytesIO(videos["h264.mp4"]))
        segments = plan_segments(facts, 0.04, 3)
        assert segments == [Segment(0, 13), Segment(13, 26), Segment(26, None)]
        assert plan_segments(facts, 0.5, 3) == [Segment()]
        live = read_clip_facts(io.BytesIO(videos["vp9_live.webm"]))
        assert plan_segments(live, 0.01, 3) == [Segment()]


class TestAnimations:
    @pytest.mark.parametrize("ending", sorted(ANIMATIONS))
    def test_frames_have_the_times_and_colors_of_the_file(self, pictures, ending):
        durations = [100, 40, 250, 1000, 60]
        options = {"lossless": True} if ending == "webp" else {}
        content = encode_animation(pictures[:5], ANIMATIONS[ending], durations, **options)
        frames = list(read_frames(io.BytesIO(content)))
        starts = [0, 0.1, 0.14, 0.39, 1.39]
        np.testing.assert_allclose([frame.time for frame in frames], starts)
        assert frames[-1].end == pytest.approx(1.45)
        for frame, picture in zip(frames, pictures, strict=False):
            # GIF has 256 colours.
            tolerance = 12 if ending == "gif" else 0
            assert np.abs(frame.pixels.astype(int) - picture).mean() <= tolerance
        samples, _ = read_samples(content, 0.3)
        assert [(f.index, f.time) for f in samples] == [(0, 0), (1, 0.14), (2, 0.39)]
        assert read_in_segments(content, 0.07, 2) == describe_frames(read_samples(content, 0.07)[0])

    def test_durations_of_nearly_zero_are_those_of_browsers(self, pictures):
        content = encode_animation(pictures[:3], "PNG", [0, 10, 11])
        frames = list(read_frames(io.BytesIO(content)))
        np.testing.assert_allclose([frame.time for frame in frames], [0, 0.1, 0.2])

    def test_transparent_pixels_are_white(self):
        file = io.BytesIO()
        Image.new("RGBA", (20, 10), (255, 0, 0, 0)).save(file, "PNG")
        (frame,) = read_frames(io.BytesIO(file.getvalue()))
        assert (frame.pixels == 255).all()

    @pytest.mark.parametrize("ending", sorted(ANIMATIONS))
    def test_frames_before_the_damage_are_read(self, pictures, ending):
        content = encode_animation(pictures[:20], ANIMATIONS[ending], 100)
        frames, problem = read_samples(content[: len(content) * 6 // 10], 0.1)
        assert problem is not None
        assert "\n" not in problem
        if ending == "webp":  # a container whose end is missing cannot be opened
            assert frames == []
        else:
            assert 8 <= len(frames) < 20
            assert (
                describe_frames(frames)
                == describe_frames(read_samples(content, 0.1)[0])[: len(frames)]
            )


class TestDamage:
    @pytest.mark.parametrize("fraction", [0.02, 0.3, 0.5, 0.7, 0.9])
    @pytest.mark.parametrize("name", sorted(ENCODINGS))
    def test_a_missing_end_is_reported_and_what_comes_before_is_read(
        self, videos, name, fraction, capfd
    ):
        whole = {f[1]: f[3] for f in describe_frames(read_samples(videos[name], 0.04)[0])}
        content = videos[name][: int(len(videos[name]) * fraction)]
        frames, problem = read_samples(content, 0.04)
        assert problem is not None
        assert "\n" not in problem
        assert len(frames) <= COUNT * fraction + 4
        # A decoder may conceal the missing end of the last frame.
        changed = [frame for frame in describe_frames(frames) if whole[frame[1]] != frame[3]]
        assert len(changed) <= 1
        assert "".join(capfd.readouterr()) == ""

    @pytest.mark.parametrize("fraction", [0.4, 0.6])
    # MJPEG, VP9 and H.265 have no redundancy: other bits are another valid picture.
    @pytest.mark.parametrize("name", [*H264, "mpeg4.avi", "mpeg4_b_frames.avi"])
    def test_frames_that_depend_on_damage_are_left_out(self, videos, name, fraction):
        whole = {frame[1]: frame for frame in describe_frames(read_samples(videos[name], 0.04)[0])}
        content = bytearray(videos[name])
        position = int(len(content) * fraction)
        content[position : position + 60] = bytes(60)
        frames, problem = read_samples(bytes(content), 0.04)
        assert problem is not None
        assert "\n" not in problem
        assert COUNT // 2 <= len(frames) < COUNT
        differences = [f for f in describe_frames(frames) if f[3] != whole[f[1]][3]]
        assert differences == []
        # A segment before the damage has none; together they read the same frames.
        assert read_samples(bytes(content), 0.04, Segment(0, 5))[1] is None
        assert read_in_segments(bytes(content), 0.04, 7) == describe_frames(frames)

    def test_a_segment_reports_its_damage(self, videos):
        content = bytearray(videos["h264.mp4"])
        position = len(content) // 2
        content[position : position + 60] = bytes(60)
        segments = [Segment(start, start + 10) for start in range(0, 40, 10)]
        problems = [read_samples(bytes(content), 0.04, segment)[1] for segment in segments]
        assert [problem is None for problem in problems].count(False) in (1, 2)

    def test_an_empty_file(self):
        with pytest.raises(UnreadableFileError, match="no bytes"):
            list(sample_frames(io.BytesIO(b""), 1))

    @pytest.mark.parametrize(
        "text",
        [
            b"once upon a time\n" * 100,
            b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
            b"ffconcat version 1.0\nfile /etc/passwd\n",
            b"WEBVTT\n\n00:01.000 --> 00:04.000\ntext\n",
        ],
    )
    def test_a_text_is_no_video_whatever_its_name(self, tmp_path, text, capfd):
        path = tmp_path / "clip.mp4"
        path.write_bytes(text)
        for read in (read_clip_facts, lambda p: list(read_frames(p))):
            with pytest.raises(UnreadableFileError, match="not a video in a known format"):
                read(path)
        assert "".join(capfd.readouterr()) == ""

    @pytest.mark.parametrize("format_name", ["mp4", "mov", "matroska", "webm"])
    def test_sound_alone_is_no_video(self, format_name):
        with pytest.raises(UnreadableFileError, match="no video stream"):
            read_clip_facts(io.BytesIO(encode_sound(format_name)))

    def test_the_cover_of_a_sound_file_is_no_video(self, pictures):
        with pytest.raises(UnreadableFileError, match="no video stream"):
            read_clip_facts(io.BytesIO(encode_sound("mp4", cover=pictures[0])))

    @pytest.mark.parametrize("name", ["vp9.webm", "gif"])
    def test_a_frame_with_too_many_pixels_is_refused(self, videos, pictures, name):
        content = videos.get(name) or encode_animation(pictures[:2], "GIF", 100)
        with pytest.raises(UnreadableFileError, match=r"96x80 pixels; .*max_pixels is 7679"):
            list(sample_frames(io.BytesIO(content), 1, max_pixels=7679))
        assert list(sample_frames(io.BytesIO(content), 1, max_pixels=7680))


class TestSources:
    def test_a_path_an_open_file_and_a_remote_file_are_the_same(self, videos, tmp_path):
        path = tmp_path / "clip with spaces.txt"
        path.write_bytes(videos["vp9.webm"])
        expected = describe_frames(list(sample_frames(path, 0.2)))
        with path.open("rb") as file:
            assert describe_frames(list(sample_frames(file, 0.2))) == expected
            assert not file.closed
        filesystem = fsspec.filesystem("memory")
        filesystem.pipe("/clip", videos["vp9.webm"])
        with filesystem.open("/clip") as file:
            assert describe_frames(list(sample_frames(file, 0.2))) == expected
        filesystem.rm("/clip")

    def test_a_missing_file_is_an_error_of_the_file(self, tmp_path):
        with pytest.raises(UnreadableFileError, match="No such file"):
            read_clip_facts(tmp_path / "missing.mp4")

    def test_an_error_while_the_file_is_read_is_the_reason(self, videos, capfd):
        class BrokenFile(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if self.tell() > 20_000:
                    raise OSError(5, "the disk is broken")
                return super().read(size)

        with pytest.raises(UnreadableFileError, match="the disk is broken"):
            list(read_frames(BrokenFile(videos["vp9.webm"])))
        assert "".join(capfd.readouterr()) == ""

    @pytest.mark.parametrize("name", ["mjpeg.avi", "h264.mp4"])
    def test_the_memory_does_not_grow_with_the_length(self, tmp_path, name):
        pictures = make_pictures(30, (640, 480))
        path = tmp_path / "clip"
        path.write_bytes(encode_video(pictures * 5, ENCODINGS[name]))
        frames = read_frames(path)
        for _ in range(20):
            next(frames)
        before = read_memory()
        for _ in range(120):
            next(frames)
        # The 120 frames would be 110 MB.
        assert read_memory() - before < 20


def read_memory() -> float:
    """Return the memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6
