import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_pipeline.data.image_decoding import decode_gray
from fer_pipeline.data.image_preparation import resize

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (40, 30), np.uint8)
COLOURS = RNG.integers(0, 256, (12, 9, 3), np.uint8)
# OpenCV's channels stand as blue, green, red.
GREY = COLOURS @ np.array([0.114, 0.587, 0.299])


def encode(image: np.ndarray, suffix: str, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, image, options)
    assert done
    return data.tobytes()


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".pgm"])
def test_grey_images_keep_their_values(suffix):
    found = decode_gray(encode(NOISE, suffix))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, NOISE)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm"])
def test_colours_become_their_luma(suffix):
    found = decode_gray(encode(COLOURS, suffix))
    assert found.shape == (12, 9)
    assert np.abs(found - GREY).max() < 1.01


def test_what_is_grey_in_colour_keeps_its_values():
    for channels in (3, 4):
        image = np.dstack([NOISE] * 3 + [RNG.integers(0, 256, (40, 30), np.uint8)] * (channels - 3))
        np.testing.assert_array_equal(decode_gray(encode(image, ".png")), NOISE)


def test_transparency_is_not_looked_at():
    seen = decode_gray(encode(np.dstack([COLOURS, np.full((12, 9), 255, np.uint8)]), ".png"))
    hidden = decode_gray(encode(np.dstack([COLOURS, np.zeros((12, 9), np.uint8)]), ".png"))
    np.testing.assert_array_equal(hidden, seen)
    assert np.abs(seen - GREY).max() < 1.01


def test_16_bits_keep_their_upper_eight():
    deep = RNG.integers(0, 65536, (40, 30)).astype(np.uint16)
    np.testing.assert_array_equal(decode_gray(encode(deep, ".png")), deep >> 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_kind_of_png_gives_its_grey_values(mode):
    image = Image.fromarray(NOISE).convert(mode)
    expected = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(decode_gray(saved(image, "PNG")), expected)


def test_a_jpeg_of_grey_ramps_comes_back_almost_exactly():
    ramp = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (48, 1))
    for options in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]):
        found = decode_gray(encode(ramp, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100, *options))
        assert np.abs(found.astype(int) - ramp).max() <= 2


def test_a_picture_that_was_held_upright_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn clockwise is due
    found = decode_gray(saved(Image.fromarray(NOISE), "PNG", exif=exif))
    np.testing.assert_array_equal(found, np.rot90(NOISE, -1))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".jpg", []),
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
        (".png", []),
        (".bmp", []),
        (".tiff", []),
        (".webp", []),
    ],
)
def test_an_image_that_is_cut_short_is_none_and_never_half_an_image(suffix, options):
    data = encode(NOISE, suffix, *options)
    whole = decode_gray(data)
    assert whole.shape == NOISE.shape
    for end in range(0, len(data), 7):
        found = decode_gray(data[:end])
        # What follows the last pixel may be missing.
        assert found is None or np.array_equal(found, whole), end
    assert decode_gray(data[: len(data) // 2]) is None


def with_thumbnail(data: bytes) -> bytes:
    """A JPEG with another whole one in its header, as cameras write it."""
    header = b"Exif\0\0" + encode(NOISE[:8, :8], ".jpg")
    return data[:2] + b"\xff\xe1" + (len(header) + 2).to_bytes(2, "big") + header + data[2:]


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_image():
    data = with_thumbnail(encode(NOISE, ".jpg"))
    assert len(data) < 4096
    assert decode_gray(data).shape == NOISE.shape
    assert decode_gray(data[: len(data) * 2 // 3]) is None


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("extra", [1, 100, 5000])
def test_what_stands_behind_a_whole_image_does_no_harm(suffix, extra):
    # Phones write a video or notes of their own there.
    data = encode(NOISE, suffix)
    np.testing.assert_array_equal(decode_gray(data + bytes(extra)), decode_gray(data))


def test_a_png_with_a_flipped_byte_is_none():
    data = bytearray(encode(NOISE, ".png"))
    data[len(data) // 2] ^= 0xFF
    assert decode_gray(bytes(data)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"hello, I am a text file named .jpg\n",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\nIEND",
        b"GIF89a",
        b"BM",
        b"P5 4 4 255\n",
        bytes(4096),
    ],
)
def test_what_is_no_image_is_none(data):
    assert decode_gray(data) is None


@given(st.binary(max_size=64), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"]))
@settings(deadline=None, max_examples=60)
def test_no_bytes_raise(data, start):
    found = decode_gray(start + data)
    assert found is None or (found.dtype == np.uint8 and found.ndim == 2)


def areas(length: int, size: int) -> np.ndarray:
    """The part of each result pixel that each source pixel covers: (size, length), exact."""
    edges = np.arange(size + 1) * length / size
    source = np.arange(length)
    covered = np.minimum(edges[1:, None], source + 1) - np.maximum(edges[:-1, None], source)
    return np.clip(covered, 0, 1) * size / length


def weights(length: int, size: int) -> np.ndarray:
    """The linear weights of the two source pixels around each result pixel: (size, length)."""
    place = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    return np.clip(1 - np.abs(place[:, None] - np.arange(length)), 0, 1)


def noise(height: int, width: int, seed: int) -> np.ndarray:
    """Half of the images are black and white only, where rounding shows most."""
    values = [0, 255] if seed % 2 else range(256)
    return np.random.default_rng(seed).choice(values, (height, width)).astype(np.uint8)


seeds = st.integers(0, 1000)


@given(st.integers(8, 48), st.integers(0, 60), st.integers(0, 60), seeds)
@settings(deadline=None)
def test_shrinking_is_the_mean_of_what_is_covered_rounded_once(size, taller, wider, seed):
    image = noise(size + taller, size + wider, seed)
    exact = areas(size + taller, size) @ image @ areas(size + wider, size).T
    found = resize(image, size)
    assert (found.shape, found.dtype) == ((size, size), np.uint8)
    assert np.abs(found - exact).max() <= 0.5 + 1e-3


@given(st.integers(8, 64), st.integers(1, 63), st.integers(1, 90), seeds)
@settings(deadline=None)
def test_enlarging_is_linear(size, height, width, seed):
    height = min(height, size - 1)
    image = noise(height, width, seed)
    for turned in (image, image.T):
        exact = weights(turned.shape[0], size) @ turned @ weights(turned.shape[1], size).T
        found = resize(turned, size)
        assert (found.shape, found.dtype) == ((size, size), np.uint8)
        assert np.abs(found - exact).max() < 1


@pytest.mark.parametrize(("height", "width", "size"), [(28, 28, 48), (20, 30, 48), (24, 24, 48)])
def test_enlarging_rounds_once(height, width, size):
    for seed in range(10):
        image = noise(height, width, seed)
        exact = weights(height, size) @ image @ weights(width, size).T
        assert np.abs(resize(image, size) - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("size", [8, 28, 48])
def test_an_image_of_the_size_stays_as_it_is(size):
    image = noise(size, size, 0)
    np.testing.assert_array_equal(resize(image, size), image)


def test_one_flat_value_stays_at_any_size():
    for value in (0, 1, 127, 254, 255):
        for shape in ((1, 1), (5, 90), (28, 28), (48, 48), (200, 100)):
            found = resize(np.full(shape, value, np.uint8), 48)
            np.testing.assert_array_equal(found, np.full((48, 48), value))


def test_resizing_takes_a_part_of_a_larger_array():
    image = noise(96, 192, 0)
    expected = resize(np.ascontiguousarray(image[:, ::2]), 48)
    np.testing.assert_array_equal(resize(image[:, ::2], 48), expected)
