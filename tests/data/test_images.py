import io

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_pipeline.data.image_decoding import decode_gray
from fer_pipeline.data.image_preparation import resize

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (40, 30), np.uint8)
COLOURS = RNG.integers(0, 256, (12, 9, 3), np.uint8)
# The order of OpenCV's channels is blue, green, red.
GREY = COLOURS @ np.array([0.114, 0.587, 0.299])


def encode(image: np.ndarray, suffix: str, *options: int) -> bytes:
    is_encoded, content = cv2.imencode(suffix, image, options)
    assert is_encoded
    return content.tobytes()


def save_with_pillow(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decode(content: bytes) -> npt.NDArray[np.uint8]:
    """Return the image of a file that can be decoded."""
    image = decode_gray(content)
    assert image is not None
    return image


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".pgm"])
def test_grey_images_keep_their_values(suffix):
    image = decode(encode(NOISE, suffix))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, NOISE)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm"])
def test_colours_become_their_luma(suffix):
    image = decode(encode(COLOURS, suffix))
    assert image.shape == (12, 9)
    assert np.abs(image - GREY).max() < 1.01


def test_grey_pixels_of_colour_images_keep_their_values():
    for channels in (3, 4):
        image = np.dstack([NOISE] * 3 + [RNG.integers(0, 256, (40, 30), np.uint8)] * (channels - 3))
        np.testing.assert_array_equal(decode(encode(image, ".png")), NOISE)


def test_transparency_is_ignored():
    opaque = decode(encode(np.dstack([COLOURS, np.full((12, 9), 255, np.uint8)]), ".png"))
    transparent = decode(encode(np.dstack([COLOURS, np.zeros((12, 9), np.uint8)]), ".png"))
    np.testing.assert_array_equal(transparent, opaque)
    assert np.abs(opaque - GREY).max() < 1.01


def test_16_bits_keep_their_upper_eight():
    deep_image = RNG.integers(0, 65536, (40, 30)).astype(np.uint16)
    np.testing.assert_array_equal(decode(encode(deep_image, ".png")), deep_image >> 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_kind_of_png_gives_its_grey_values(mode):
    image = Image.fromarray(NOISE).convert(mode)
    expected = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(decode(save_with_pillow(image, "PNG")), expected)


def test_a_jpeg_of_grey_ramps_is_decoded_almost_exactly():
    ramp = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (48, 1))
    all_options: list[list[int]] = [
        [],
        [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
    ]
    for options in all_options:
        image = decode(encode(ramp, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100, *options))
        assert np.abs(image.astype(int) - ramp).max() <= 2


def test_the_orientation_of_the_metadata_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn clockwise is due
    image = decode(save_with_pillow(Image.fromarray(NOISE), "PNG", exif=exif))
    np.testing.assert_array_equal(image, np.rot90(NOISE, -1))


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
def test_a_truncated_image_is_none_and_never_a_partial_image(suffix, options):
    content = encode(NOISE, suffix, *options)
    whole = decode(content)
    assert whole.shape == NOISE.shape
    for end in range(0, len(content), 7):
        image = decode_gray(content[:end])
        # The bytes after the last pixel may be missing.
        assert image is None or np.array_equal(image, whole), end
    assert decode_gray(content[: len(content) // 2]) is None


def add_thumbnail(content: bytes) -> bytes:
    """Add a second JPEG file to the header of a JPEG file, as cameras do."""
    header = b"Exif\0\0" + encode(NOISE[:8, :8], ".jpg")
    return content[:2] + b"\xff\xe1" + (len(header) + 2).to_bytes(2, "big") + header + content[2:]


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_image():
    content = add_thumbnail(encode(NOISE, ".jpg"))
    assert len(content) < 4096
    assert decode(content).shape == NOISE.shape
    assert decode_gray(content[: len(content) * 2 // 3]) is None


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("extra", [1, 100, 5000])
def test_bytes_after_a_complete_image_are_ignored(suffix, extra):
    # Phones add videos or metadata there.
    content = encode(NOISE, suffix)
    np.testing.assert_array_equal(decode(content + bytes(extra)), decode(content))


def test_a_png_with_a_flipped_byte_is_none():
    content = bytearray(encode(NOISE, ".png"))
    content[len(content) // 2] ^= 0xFF
    assert decode_gray(bytes(content)) is None


@pytest.mark.parametrize(
    "content",
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
def test_other_files_than_images_are_none(content):
    assert decode_gray(content) is None


@given(st.binary(max_size=64), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"]))
@settings(deadline=None, max_examples=60)
def test_arbitrary_bytes_raise_no_error(content, start):
    image = decode_gray(start + content)
    assert image is None or (image.dtype == np.uint8 and image.ndim == 2)


def compute_covered_areas(length: int, size: int) -> np.ndarray:
    """Return the part of each resized pixel that each source pixel covers: (size, length)."""
    edges = np.arange(size + 1) * length / size
    source = np.arange(length)
    covered = np.minimum(edges[1:, None], source + 1) - np.maximum(edges[:-1, None], source)
    return np.clip(covered, 0, 1) * size / length


def compute_linear_weights(length: int, size: int) -> np.ndarray:
    """Return the weights of the two source pixels around each resized pixel: (size, length)."""
    place = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    return np.clip(1 - np.abs(place[:, None] - np.arange(length)), 0, 1)


def make_noise(height: int, width: int, seed: int) -> np.ndarray:
    """Return a random image; with an odd seed it is black and white, which shows rounding most."""
    values = [0, 255] if seed % 2 else range(256)
    return np.random.default_rng(seed).choice(values, (height, width)).astype(np.uint8)


seeds = st.integers(0, 1000)


@given(st.integers(8, 48), st.integers(0, 60), st.integers(0, 60), seeds)
@settings(deadline=None)
def test_shrinking_averages_the_covered_area_and_rounds_once(size, taller, wider, seed):
    image = make_noise(size + taller, size + wider, seed)
    exact = (
        compute_covered_areas(size + taller, size)
        @ image
        @ compute_covered_areas(size + wider, size).T
    )
    resized = resize(image, size)
    assert (resized.shape, resized.dtype) == ((size, size), np.dtype(np.uint8))
    assert np.abs(resized - exact).max() <= 0.5 + 1e-3


@given(st.integers(8, 64), st.integers(1, 63), st.integers(1, 90), seeds)
@settings(deadline=None)
def test_enlarging_is_linear(size, height, width, seed):
    height = min(height, size - 1)
    image = make_noise(height, width, seed)
    for turned in (image, image.T):
        exact = (
            compute_linear_weights(turned.shape[0], size)
            @ turned
            @ compute_linear_weights(turned.shape[1], size).T
        )
        resized = resize(turned, size)
        assert (resized.shape, resized.dtype) == ((size, size), np.dtype(np.uint8))
        assert np.abs(resized - exact).max() < 1


@pytest.mark.parametrize(("height", "width", "size"), [(28, 28, 48), (20, 30, 48), (24, 24, 48)])
def test_enlarging_rounds_once(height, width, size):
    for seed in range(10):
        image = make_noise(height, width, seed)
        exact = compute_linear_weights(height, size) @ image @ compute_linear_weights(width, size).T
        assert np.abs(resize(image, size) - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("size", [8, 28, 48])
def test_an_image_of_the_size_stays_as_it_is(size):
    image = make_noise(size, size, 0)
    np.testing.assert_array_equal(resize(image, size), image)


def test_an_image_of_one_grey_level_keeps_it_at_any_size():
    for level in (0, 1, 127, 254, 255):
        for shape in ((1, 1), (5, 90), (28, 28), (48, 48), (200, 100)):
            resized = resize(np.full(shape, level, np.uint8), 48)
            np.testing.assert_array_equal(resized, np.full((48, 48), level))


def test_a_view_of_a_larger_array_is_resized_like_its_copy():
    image = make_noise(96, 192, 0)
    expected = resize(np.ascontiguousarray(image[:, ::2]), 48)
    np.testing.assert_array_equal(resize(image[:, ::2], 48), expected)
