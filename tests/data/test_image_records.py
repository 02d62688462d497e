import cv2
import numpy as np
import pytest

from fer_pipeline.data import image_records
from fer_pipeline.data.image_decoding import DecodedFile, DecodingOptions, decode_file
from fer_pipeline.data.image_records import collect_records
from fer_pipeline.data.outcomes import Outcome


def make_image(seed: int, height: int = 12, width: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def encode_png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def decode(content: bytes) -> DecodedFile:
    return decode_file(content, DecodingOptions())


def test_the_folders_of_a_file_are_its_usage_and_emotion():
    files = [
        (decode(encode_png(make_image(n))), path)
        for n, path in enumerate(["/d/Training/3/a.png", "b.png", "x/c.png"])
    ]
    [parsed] = collect_records(files)
    assert parsed.emotions == ["3", None, "x"]
    assert parsed.usages == ["Training", None, None]
    assert parsed.texts == [b"/d/Training/3/a.png", b"b.png", b"x/c.png"]
    assert parsed.errors.details == {}
    for row in range(3):
        np.testing.assert_array_equal(parsed.images[row], make_image(row))


def test_an_unreadable_file_has_an_error_and_its_neighbours_are_read():
    complete_file = encode_png(make_image(1))
    contents = [
        complete_file,
        b"",
        complete_file[:40],
        encode_png(make_image(2, 7, 20)),
        complete_file,
    ]
    files = ((decode(content), f"f/{n}.png") for n, content in enumerate(contents))
    [parsed] = collect_records(files)
    assert parsed.errors.outcomes.tolist() == [
        Outcome.KEPT,
        Outcome.UNDECODABLE_IMAGE,
        Outcome.UNDECODABLE_IMAGE,
        Outcome.IMAGE_TOO_SMALL,
        Outcome.KEPT,
    ]
    assert parsed.errors.details == {
        1: "no bytes",
        2: "40 bytes, not in a known format, or with a damaged header",
        3: "20x7 pixels; the minimum is 8x8",
    }
    np.testing.assert_array_equal(parsed.images[4], make_image(1))


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 6), (300, [3, 2, 1]), (10_000, [6])])
def test_images_are_decoded_in_batches_of_limited_size(monkeypatch, limit, sizes):
    monkeypatch.setattr(image_records, "_PIXELS_PER_BATCH", limit)
    heights = [12, 12, 12, 20, 20, 12]
    files = [
        (decode(encode_png(make_image(n, height))), f"f/{n}.png")
        for n, height in enumerate(heights)
    ]
    groups = list(collect_records(files))
    assert [len(group) for group in groups] == sizes
    assert [path for group in groups for path in group.texts] == [b"f/%d.png" % n for n in range(6)]
    decoded = [pixels for group in groups for pixels in group.images]
    for n, height in enumerate(heights):
        np.testing.assert_array_equal(decoded[n], make_image(n, height))


def test_no_files_are_no_records():
    assert list(collect_records([])) == []
