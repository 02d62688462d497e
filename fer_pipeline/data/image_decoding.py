"""Decoding of image files to grey values.

Pillow reads the header, before any pixel is decoded: format, size, transparency and number of
images. OpenCV decodes the pixels; docs/decisions/0009-decoders.md has the reasons.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin

from fer_pipeline.data.bit_depth import scale_to_bytes
from fer_pipeline.data.decoder_messages import capture_messages, find_damage
from fer_pipeline.data.face_row import FaceRow
from fer_pipeline.data.image_notes import ImageNote, join_notes
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.pixel_strings import MIN_SIZE
from fer_pipeline.data.record_batch import Pixels
from fer_pipeline.extras import suggest_install
from fer_pipeline.io.file_parts import FileContent, Unreadable

# Spark runs one worker per core, so a thread pool in each worker would only compete for the cores.
cv2.setNumThreads(1)

BACKGROUND = 255
"""Grey value behind transparent pixels: white, as most programs show them."""

_HEIF = "HEIF"
_FORMATS = (
    "JPEG",
    "PNG",
    "GIF",
    "BMP",
    "TIFF",
    "WEBP",
    "AVIF",
    "JPEG2000",
    "PPM",
    _HEIF,
)
"""Pillow's names of the formats that are read; JPEG includes MPO. Pillow knows more, and runs a
program for one."""

_REDUCED_FORMATS = ("JPEG", "MPO")
"""Pillow's names of the formats that OpenCV reduces while it decodes."""

_COLOR_FLAGS = {
    1: cv2.IMREAD_COLOR_BGR | cv2.IMREAD_ANYDEPTH,
    # Without a flag for RGB: with it, OpenCV reads nothing.
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
"""Flags of OpenCV for the order blue, green, red, by the factor of the reduction."""

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
"""Brands of HEIF files (ISO/IEC 23008-12) at byte 8."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Problem = tuple[Outcome, str]
"""Why a file is no usable image: the outcome of its record, and a description."""


@dataclass(frozen=True)
class DecodingOptions:
    """Options that decide which images are accepted.

    Attributes:
        max_pixels: Largest number of pixels; the header of a file decides, before memory is
            allocated.
        keep_damaged: Whether to use images in which the decoder found damage.
    """

    max_pixels: int = 100_000_000
    keep_damaged: bool = False


class DecodedFile(NamedTuple):
    """The image of a file, or the reason why it has none.

    Attributes:
        image: Grey values, uint8 of shape (height, width), or RGB, uint8 of shape (height, width,
            3); None if there is a problem.
        problem: The problem; None if the file is a usable image.
        note: Notes on a usable image, see `join_notes`; None if there are none.
        reduction: Factor by which the image is smaller than in the file.
        face: The face that the image shows, if it was found in a larger image.
    """

    image: Pixels | None
    problem: Problem | None = None
    note: str | None = None
    reduction: int = 1
    face: FaceRow | None = None


ChooseReduction = Callable[[int, int], int | None]
"""A function that decides from the width and height in the header of a file how it is decoded.

It returns None for grey values, or for RGB the factor by which the image is reduced: 1, 2, 4 or 8.
Only JPEG is reduced, by its decoder, which saves most of the time."""


class _UnusableImage(Exception):  # noqa: N818 - it describes a file
    """A file is no usable image; the arguments are the outcome of its record and a description."""


ImageReader = Callable[[FileContent], list[DecodedFile]]
"""A function that reads the images of a file that are to be used: its own, or the faces in it.

It is sent to Spark's workers; functions that do the same must be equal objects."""


@dataclass(frozen=True)
class CropReader:
    """An `ImageReader` for files that show one face each; see `decode_file`."""

    decoding: DecodingOptions

    def __call__(self, content: FileContent) -> list[DecodedFile]:
        """Return the image of a file, in a list of one element."""
        return [decode_file(content, self.decoding)]


def decode_file(
    content: FileContent,
    options: DecodingOptions,
    choose_reduction: ChooseReduction = lambda *_: None,
) -> DecodedFile:
    """Decode an image file, by default to grey values.

    * The orientation in the metadata is applied.
    * Of several images in a file (animations, pages) the first one is used.
    * Transparent pixels are mixed with white (BACKGROUND).
    * Values of more than 8 bits are scaled by what the image holds, see `bit_depth`.

    Args:
        content: Content of the file, or the reason why it cannot be read.
        options: Options of the decoding.
        choose_reduction: Function that decides whether the image is decoded in colour.
    """
    if isinstance(content, Unreadable):
        return DecodedFile(None, (Outcome.UNREADABLE_FILE, content.reason))
    try:
        return _decode(content, options, choose_reduction)
    except _UnusableImage as problem:
        return DecodedFile(None, problem.args)


def _decode(
    content: bytes, options: DecodingOptions, choose_reduction: ChooseReduction
) -> DecodedFile:
    """Decode the content of an image file.

    Raises:
        _UnusableImage: The content is no usable image.
    """
    header = _read_header(content, options)
    notes = [ImageNote.FIRST_OF_SEVERAL] if _has_several_images(header) else []
    reduction = choose_reduction(*header.size)
    if reduction and header.format not in _REDUCED_FORMATS:
        reduction = 1
    with capture_messages() as messages:
        values = _decode_values(content, header, reduction)
        damage = find_damage(messages.read())
    if damage:
        if not options.keep_damaged:
            raise _UnusableImage(Outcome.DAMAGED_IMAGE, damage)
        notes.append(ImageNote.DAMAGED)
    try:
        image = scale_to_bytes(values)
    except ValueError as error:
        raise _UnusableImage(Outcome.UNDECODABLE_IMAGE, str(error)) from error
    if values.dtype != np.uint8 and _is_inverted(header):
        image = 255 - image
    if header.has_transparency_data:
        image = _mix_with_background(image, header)
    return DecodedFile(image, note=join_notes(notes), reduction=reduction or 1)


def _read_header(content: bytes, options: DecodingOptions) -> Image.Image:
    """Read the header of an image file; the pixels are not decoded.

    Raises:
        _UnusableImage: The format is not known, or the image is too small or too large.
    """
    try:
        with warnings.catch_warnings():
            # Metadata that cannot be read does not concern the pixels.
            warnings.simplefilter("ignore")
            header = Image.open(io.BytesIO(content), formats=_prepare_pillow())
    except Exception as error:
        # Pillow's parsers raise errors of many types for damaged headers.
        raise _UnusableImage(Outcome.UNDECODABLE_IMAGE, _describe_unknown(content)) from error
    width, height = header.size
    if min(width, height) < MIN_SIZE:
        detail = f"{width}x{height} pixels; the minimum is {MIN_SIZE}x{MIN_SIZE}"
        raise _UnusableImage(Outcome.IMAGE_TOO_SMALL, detail)
    if width * height > options.max_pixels:
        detail = f"{width}x{height} pixels; input.max_pixels is {options.max_pixels}"
        raise _UnusableImage(Outcome.IMAGE_TOO_LARGE, detail)
    return header


@cache
def _prepare_pillow() -> tuple[str, ...]:
    """Register HEIF if pi_heif is installed, and return the names of the formats to read."""
    # `max_pixels` takes the place of Pillow's own limit.
    Image.MAX_IMAGE_PIXELS = None
    try:
        import pi_heif
    except ImportError:
        return tuple(name for name in _FORMATS if name != _HEIF)
    pi_heif.register_heif_opener()
    return _FORMATS


def _describe_unknown(content: bytes) -> str:
    """Describe a file whose header cannot be read."""
    if not content:
        return "no bytes"
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS and _HEIF not in _prepare_pillow():
        return f"a HEIC image, which another package reads: {suggest_install('pi_heif')}"
    return f"{len(content)} bytes, not in a known format, or with a damaged header"


def _has_several_images(header: Image.Image) -> bool:
    """Return whether a file holds several images, such as the frames of an animation."""
    try:
        return bool(getattr(header, "is_animated", False))
    except Exception:  # the second image is damaged
        return True


def _is_inverted(header: Image.Image) -> bool:
    """Return whether 0 is white; OpenCV takes care of this only for 8 bits."""
    if not isinstance(header, TiffImagePlugin.TiffImageFile):
        return False
    return header.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0


def _decode_values(
    content: bytes, header: Image.Image, reduction: int | None
) -> npt.NDArray[np.generic]:
    """Decode the pixels of an image file.

    Args:
        content: Content of the file.
        header: The opened file.
        reduction: Factor by which the image is reduced; None for grey values.

    Returns:
        Grey values of shape (height, width), or RGB of shape (height, width, 3), in the data type
        of the file.

    Raises:
        _UnusableImage: The pixels cannot be decoded.
    """
    values: npt.NDArray[np.generic] | None = None
    if header.format == _HEIF or _has_own_range(header):
        with contextlib.suppress(Exception):  # Pillow's decoders raise errors of many types
            mode = "RGB" if reduction else "L"
            values = np.asarray(header if header.mode == "I" else header.convert(mode))
            if reduction and values.ndim == 2:
                values = np.repeat(values[..., np.newaxis], 3, axis=2)
    elif header.format != "PNG" or _has_complete_chunks(content):
        flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
        values = _decode_with_opencv(content, _COLOR_FLAGS[reduction] if reduction else flags)
        if reduction and values is not None:
            values = cv2.cvtColor(cast(Pixels, values), cv2.COLOR_BGR2RGB)
    if values is None:
        detail = f"{len(content)} bytes, the pixels of the {header.format} image cannot be decoded"
        raise _UnusableImage(Outcome.UNDECODABLE_IMAGE, detail)
    if header.format == "AVIF":
        values = _turn_upright(values, header)
    return values


def _has_own_range(header: Image.Image) -> bool:
    """Return whether the header of a PGM or PPM file states another range of values than 8 bits.

    Pillow then scales the values to 8 or 16 bits, OpenCV does not.
    """
    return header.format == "PPM" and cast(ImageFile.ImageFile, header).tile[0].codec_name != "raw"


def _decode_with_opencv(content: bytes, flags: int) -> npt.NDArray[np.generic] | None:
    """Return the pixels of an image file; None if they cannot be decoded."""
    # libjpeg reports only its first warning. That of an unknown version would hide others.
    if content[6:11] == b"JFIF\0":
        content = content[:11] + b"\x01" + content[12:]
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None


def _turn_upright(values: npt.NDArray[np.generic], header: Image.Image) -> npt.NDArray[np.generic]:
    """Apply the orientation in the metadata, which OpenCV does for all formats but AVIF."""
    image = Image.fromarray(values)
    orientation = ExifTags.Base.Orientation
    image.getexif()[orientation] = header.getexif().get(orientation, 1)
    return np.asarray(ImageOps.exif_transpose(image))


def _has_complete_chunks(content: bytes) -> bool:
    """Return whether the chunks of a PNG file, up to the end of the image, are within the file.

    OpenCV reserves memory for the stated length of a chunk, up to 2 GB, before it reads it.
    """
    position = len(_PNG_SIGNATURE)
    while content[position + 4 : position + 8] != b"IEND":
        length = int.from_bytes(content[position : position + 4], "big")
        position += 12 + length  # with length, type and checksum
        if position > len(content):
            return False
    return True


def _mix_with_background(image: Pixels, header: Image.Image) -> Pixels:
    """Mix the transparent pixels of an image with the background.

    Args:
        image: Grey values, uint8 of shape (height, width).
        header: The opened file, which contains the opacity of each pixel.

    Raises:
        _UnusableImage: The opacity cannot be decoded.
    """
    try:
        upright = ImageOps.exif_transpose(header)
        if "A" not in upright.getbands():
            upright = upright.convert("RGBA")
        opacity = np.asarray(upright.getchannel("A")).astype(np.uint16)
        if image.ndim == 3:
            opacity = opacity[..., np.newaxis]
        mixed = (image * opacity + BACKGROUND * (255 - opacity) + 127) // 255
    except Exception as error:  # Pillow's decoders raise errors of many types
        detail = f"the transparency of the {header.format} image cannot be decoded"
        raise _UnusableImage(Outcome.UNDECODABLE_IMAGE, detail) from error
    return mixed.astype(np.uint8)
