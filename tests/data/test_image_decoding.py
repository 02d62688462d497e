import base64
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_pipeline.data import image_decoding
from fer_pipeline.data.image_decoding import BACKGROUND, DecodingOptions, decode_file
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.io.file_parts import Unreadable
from tests.helpers.image_files import (
    decode,
    draw,
    encode_all,
    find_problem,
    save,
    save_pages,
    save_turned,
)
from tests.helpers.images import decode_grey, encode_image

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (40, 30), np.uint8)
COLOURS = RNG.integers(0, 256, (12, 9, 3), np.uint8)
# The order of OpenCV's channels is blue, green, red.
GREY = COLOURS @ np.array([0.114, 0.587, 0.299])

FACE_IN_HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAXVtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAA"
    "AAAAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABmQABAAAAAAAAAPoAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAAB"
    "AABodmMxAAAAAA5waXRtAAAAAAABAAAA9WlwcnAAAADVaXBjbwAAAHBodmNDAQQIAAAAn/gAAAAAHvAA/Pz4+AAADw"
    "NgAAEAF0ABDAH//wQIAAADAJ/4AAADAAAeugJAYQABACVCAQEECAAAAwCf+AAAAwAAHsCCBBZbq5Ka5sCAAAAMgAAA"
    "AwCEYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAADAAAA"
    "ABAAAAMAAAAAH////wAAAAAv////AAAAACAAAADnBpeGkAAAAAAQgAAAAYaXBtYQAAAAAAAAABAAEFgQIDBYQAAAEC"
    "bWRhdAAAAPYoAa6wjwsE8/2Qyem3HZUI7sipFjvApOW7BfLTRUgvNjpWzFhVg2X2CKVMIIMvNt7P6nLKDSAgmm1FCm"
    "v5a0qxgBI3v49kkIYGBGohYsBy5uE6Lg/ieOAPzKce1ZAWwS/BiSI8/zup7tOgDmf67MKv8hVlpRVtZaoPgLEDUph1"
    "WnjCHgpnqt8IJ/6gSZG3Z2DTH3otQf8Nvg9/PMKh0GtpDfl3xIKaMrXBZUBeJebt5s+r/6gSEXov+sKCnlU90dFXtw"
    "6SSwoG48OkhBQG2cxHIbFuWazrOuXE/g3NJpR2dEVZTnEIKlug1SgX2SiVZxKBX4VCpF4="
)
"""The face of `draw`, 48x48; no package that is used here writes the format."""


def find_image(content: bytes) -> np.ndarray | None:
    """Return the image of a file; None if the file is no usable image."""
    return decode_file(content, DecodingOptions()).image


SCALED = ("png deep", "tiff deep", "tiff floats", "png transparent", "webp transparent")
"""Files whose values are scaled or mixed with the background."""


@pytest.mark.parametrize("name", [name for name in encode_all() if name not in SCALED])
def test_8_bits_are_decoded_as_by_opencv(name):
    content = encode_all()[name]
    np.testing.assert_array_equal(decode(content), decode_grey(content))


@pytest.mark.parametrize("name", ["png deep", "tiff deep", "tiff floats"])
def test_deep_files_give_the_values_of_8_bits(name):
    np.testing.assert_array_equal(decode(encode_all()[name]), np.asarray(draw().grey))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
def test_16_bits_are_scaled_by_the_bits_that_are_used(bits, suffix):
    deep_image = RNG.integers(0, 2**bits, (40, 30)).astype(np.uint16)
    deep_image[0, 0] = 2**bits - 1
    np.testing.assert_array_equal(decode(encode_image(suffix, deep_image)), deep_image >> bits - 8)


def test_floats_above_1_are_taken_as_integers():
    values = NOISE.astype(np.float32)
    np.testing.assert_array_equal(decode(save(Image.fromarray(values), "TIFF")), NOISE)
    values[0, 0] = 1023
    assert decode(save(Image.fromarray(values), "TIFF")).max() == 255


def test_floats_that_overshoot_are_clipped():
    values = NOISE.astype(np.float32) / 255
    values[0, :2] = -0.01, 1.05
    image = decode(save(Image.fromarray(values), "TIFF"))
    assert image[0, :2].tolist() == [0, 255]
    np.testing.assert_array_equal(image[1:], NOISE[1:])


@pytest.mark.parametrize("bad", [-1, 1.5, np.nan, np.inf, 1e9])
def test_floats_of_an_unknown_range_are_refused(bad):
    values = NOISE.astype(np.float32) / (255 if bad == 1.5 else 1)
    values[3, 3] = bad
    outcome, detail = find_problem(save(Image.fromarray(values), "TIFF"))
    assert outcome == Outcome.UNDECODABLE_IMAGE
    assert "no known range of grey" in detail


@pytest.mark.parametrize("largest", [15, 100, 255, 4095, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_range_in_the_header_of_a_pgm_or_ppm_is_used(largest, channels):
    width, height = 20, 10
    values = np.linspace(0, largest / 2, width * height).astype(int).repeat(channels)
    bytes_per_value = 1 if largest < 256 else 2
    header = b"P%d %d %d %d\n" % (5 if channels == 1 else 6, width, height, largest)
    content = header + b"".join(int(v).to_bytes(bytes_per_value, "big") for v in values)
    expected = values[::channels].reshape(height, width) * (255 / largest)
    assert np.abs(decode(content) - expected).max() <= 1


def test_the_range_of_a_tiff_may_begin_with_white():
    white_is_zero = {262: 0}
    deep = Image.fromarray((255 - NOISE).astype(np.uint16) * 257)
    image = decode(save(deep, "TIFF", tiffinfo=white_is_zero))
    np.testing.assert_array_equal(image, NOISE)


def test_transparent_pixels_are_mixed_with_white():
    opaque = decode_grey(save(draw().colour, "PNG")).astype(int)
    for kind in ("PNG", "WEBP"):
        image = decode(save(draw().transparent, kind, lossless=True)).astype(int)
        assert (image[:, :20] == BACKGROUND).all()
        np.testing.assert_allclose(image[:, 20:30], opaque[:, 20:30] / 2 + 127.5, atol=2)
        assert np.abs(image[:, 30:] - opaque[:, 30:]).max() <= 1
    grey = draw().grey.copy()
    palette = grey.quantize(8)
    first_colour = np.asarray(palette) == palette.getpixel((0, 0))
    image = decode(save(palette, "PNG", transparency=palette.getpixel((0, 0))))
    assert (image[first_colour] == BACKGROUND).all()
    assert image[~first_colour].min() < BACKGROUND


@pytest.mark.parametrize("kind", ["PNG", "AVIF"])
def test_transparency_is_turned_together_with_the_pixels(kind):
    upright = decode(save(draw().transparent, kind))
    turned = decode(save_turned(draw().transparent, kind))
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "MPO", "TIFF"])
def test_of_several_images_in_a_file_the_first_is_used_with_a_note(kind):
    decoded = decode_file(save_pages(draw().grey, kind), DecodingOptions())
    assert decoded.image is not None
    assert np.abs(decoded.image.astype(int) - np.asarray(draw().grey)).mean() < 6
    assert decoded.note == "first image of several in its file"
    assert decode_file(save(draw().grey, kind), DecodingOptions()).note is None


def cut_and_close(jpeg: bytes) -> bytes:
    """Return a JPEG file whose second half is missing, with the marker of its end."""
    return jpeg[: len(jpeg) // 2] + b"\xff\xd9"


def break_frame_checksum(animation: bytes) -> bytes:
    """Return an animated PNG whose first frame has a wrong checksum of its pixels."""
    end = animation.index(b"fcTL", animation.index(b"IDAT")) - 8  # before length and CRC
    changed = bytearray(animation)
    changed[end - 1] ^= 0xFF
    return bytes(changed)


def test_damage_that_decoders_only_warn_about_is_a_reason():
    content = cut_and_close(encode_all()["jpeg grey"])
    outcome, detail = find_problem(content)
    assert outcome == Outcome.DAMAGED_IMAGE
    assert detail == "Corrupt JPEG data: premature end of data segment"
    decoded = decode_file(content, DecodingOptions(keep_damaged=True))
    assert decoded.image is not None
    assert decoded.image.shape == (64, 80)
    assert decoded.note == "damaged image"


@pytest.mark.parametrize("name", ["jpeg colour", "jpeg progressive", "jpeg restart", "mpo"])
def test_holes_in_a_jpeg_are_a_reason(name):
    content = encode_all()[name]
    middle = len(content) // 4 if name == "mpo" else len(content) // 2
    for hole in (bytes(200), b"\xff" * 200):
        holed = content[:middle] + hole + content[middle + 200 :]
        assert find_problem(holed)[0] in (Outcome.DAMAGED_IMAGE, Outcome.UNDECODABLE_IMAGE)


def test_an_animation_with_a_wrong_checksum_is_refused():
    outcome, _ = find_problem(break_frame_checksum(encode_all()["png animated"]))
    assert outcome in (Outcome.DAMAGED_IMAGE, Outcome.UNDECODABLE_IMAGE)


def test_messages_about_metadata_are_no_damage():
    profile = b"iCCPx\0\0" + zlib.compress(20 * b"no profile")
    chunk = struct.pack(">I", len(profile) - 4) + profile + struct.pack(">I", zlib.crc32(profile))
    png = encode_all()["png grey"]
    content = png[:33] + chunk + png[33:]
    np.testing.assert_array_equal(decode(content), decode(png))


def test_private_tags_of_a_tiff_are_no_damage():
    tags = {65000 + n: f"private text {n}" for n in range(60)}
    np.testing.assert_array_equal(
        decode(save(draw().grey, "TIFF", tiffinfo=tags)), np.asarray(draw().grey)
    )


@pytest.mark.parametrize("name", ["sPLT", "pCAL", "eXIf", "tIME"])
def test_a_useless_chunk_of_a_png_is_no_damage(name):
    text = name.encode() + b"\1"
    chunk = struct.pack(">I", 1) + text + struct.pack(">I", zlib.crc32(text))
    png = encode_all()["png grey"]
    np.testing.assert_array_equal(decode(png[:33] + chunk + png[33:]), decode(png))


def test_a_code_stream_of_jpeg_2000_is_no_damage():
    content = save(draw().grey, "JPEG2000", no_jp2=True)
    np.testing.assert_array_equal(decode(content), np.asarray(draw().grey))


def change_version(jpeg: bytes) -> bytes:
    """Return a JPEG file of a version that libjpeg does not know."""
    assert jpeg[6:11] == b"JFIF\0"
    return jpeg[:11] + b"\x05" + jpeg[12:]


def change_scan_parameters(jpeg: bytes) -> bytes:
    """Return a JPEG file whose scan has useless parameters, as some phones write it."""
    end = jpeg.index(b"\xff\xda") + 2
    end += int.from_bytes(jpeg[end : end + 2], "big")
    return jpeg[: end - 2] + b"\0" + jpeg[end - 1 :]


def test_unusual_headers_of_a_jpeg_are_no_damage():
    sound = encode_all()["jpeg grey"]
    for content in (change_version(sound), change_scan_parameters(sound)):
        np.testing.assert_array_equal(decode(content), decode(sound))
    # libjpeg reports only its first warning.
    outcome, _ = find_problem(change_version(cut_and_close(sound)))
    assert outcome == Outcome.DAMAGED_IMAGE


def test_an_image_with_too_many_pixels_is_refused_from_its_header():
    # 1,000 megapixels of one bit, in a file of 122 kB.
    content = save(Image.new("1", (40_000, 25_000)), "PNG")
    assert find_problem(content) == (
        Outcome.IMAGE_TOO_LARGE,
        "40000x25000 pixels; input.max_pixels is 100000000",
    )
    small = encode_all()["png grey"]
    assert find_problem(small, DecodingOptions(max_pixels=5119))[0] == Outcome.IMAGE_TOO_LARGE
    assert decode(small, DecodingOptions(max_pixels=5120)).shape == (64, 80)


def test_a_chunk_that_is_longer_than_the_file_is_refused_without_reading_it():
    content = bytearray(encode_all()["png grey"])
    content[33] = 0x7F  # the first byte of the length of the pixels' chunk: 2 GB
    assert find_problem(bytes(content)) == (
        Outcome.UNDECODABLE_IMAGE,
        f"{len(content)} bytes, the pixels of the PNG image cannot be decoded",
    )


def test_an_unreadable_file_keeps_its_reason():
    decoded = decode_file(Unreadable("permission denied"), DecodingOptions())
    assert decoded.problem == (Outcome.UNREADABLE_FILE, "permission denied")


def test_a_heic_image_is_decoded():
    expected = np.asarray(draw().grey.resize((48, 48))).astype(int)
    image = decode(FACE_IN_HEIC)
    assert image.shape == (48, 48)
    assert np.abs(image - expected).mean() < 5


def test_a_heic_image_names_the_extra_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    image_decoding._prepare_pillow.cache_clear()
    outcome, detail = find_problem(FACE_IN_HEIC)
    image_decoding._prepare_pillow.cache_clear()
    assert outcome == Outcome.UNDECODABLE_IMAGE
    assert "pip install 'fer_pipeline[heic]'" in detail


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".pgm"])
def test_grey_images_keep_their_values(suffix):
    image = decode(encode_image(suffix, NOISE))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, NOISE)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm"])
def test_colours_become_their_luma(suffix):
    image = decode(encode_image(suffix, COLOURS))
    assert image.shape == (12, 9)
    assert np.abs(image - GREY).max() < 1.01


def test_grey_pixels_of_colour_images_keep_their_values():
    for channels in (3, 4):
        image = np.dstack([NOISE] * 3 + [np.full((40, 30), 255, np.uint8)] * (channels - 3))
        np.testing.assert_array_equal(decode(encode_image(".png", image)), NOISE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_kind_of_png_gives_its_grey_values(mode):
    image = Image.fromarray(NOISE).convert(mode)
    expected = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(decode(save(image, "PNG")), expected)


def test_a_jpeg_of_grey_ramps_is_decoded_almost_exactly():
    ramp = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (48, 1))
    all_options: list[list[int]] = [
        [],
        [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
    ]
    for options in all_options:
        image = decode(encode_image(".jpg", ramp, cv2.IMWRITE_JPEG_QUALITY, 100, *options))
        assert np.abs(image.astype(int) - ramp).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
def test_the_orientation_of_the_metadata_is_applied(kind):
    upright = decode(save(Image.fromarray(NOISE), kind))
    turned = decode(save_turned(Image.fromarray(NOISE), kind))
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


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
    content = encode_image(suffix, NOISE, *options)
    whole = decode(content)
    assert whole.shape == NOISE.shape
    for end in range(0, len(content), 7):
        image = find_image(content[:end])
        # The bytes after the last pixel may be missing.
        assert image is None or np.array_equal(image, whole), end
    assert find_image(content[: len(content) // 2]) is None


def add_thumbnail(content: bytes) -> bytes:
    """Add a second JPEG file to the header of a JPEG file, as cameras do."""
    header = b"Exif\0\0" + encode_image(".jpg", NOISE[:8, :8])
    return content[:2] + b"\xff\xe1" + (len(header) + 2).to_bytes(2, "big") + header + content[2:]


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_image():
    content = add_thumbnail(encode_image(".jpg", NOISE))
    assert len(content) < 4096
    assert decode(content).shape == NOISE.shape
    assert find_image(content[: len(content) * 2 // 3]) is None


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("extra", [1, 100, 5000])
def test_bytes_after_a_complete_image_are_ignored(suffix, extra):
    # Phones add videos or metadata there.
    content = encode_image(suffix, NOISE)
    np.testing.assert_array_equal(decode(content + bytes(extra)), decode(content))


def test_a_png_with_a_flipped_byte_is_none():
    content = bytearray(encode_image(".png", NOISE))
    content[len(content) // 2] ^= 0xFF
    assert find_image(bytes(content)) is None


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
    assert find_image(content) is None


@given(st.binary(max_size=64), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"]))
@settings(deadline=None, max_examples=60)
def test_arbitrary_bytes_raise_no_error(content, start):
    image = find_image(start + content)
    assert image is None or (image.dtype == np.uint8 and image.ndim == 2)
