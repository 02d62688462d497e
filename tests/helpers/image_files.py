"""Image files of all formats that are read, and damage to files."""

from __future__ import annotations

import io
import random
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from fer_pipeline.data.image_decoding import DecodedFile, DecodingOptions, decode_file
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.synthetic.faces import draw_face

QUARTER_TURN = 6
"""Orientation in the metadata (tag ORIENTATION): a quarter turn clockwise is due."""

_ORIENTATION = 0x0112


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as the content of a file, in one of Pillow's formats."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def save_pages(image: Image.Image, kind: str) -> bytes:
    """Return a file with an image and a rotated copy of it."""
    return save(image, kind, save_all=True, append_images=[image.rotate(20)])


def save_turned(image: Image.Image, kind: str) -> bytes:
    """Return an image whose metadata say that a quarter turn clockwise is due."""
    exif = Image.Exif()
    exif[_ORIENTATION] = QUARTER_TURN
    return save(image, kind, exif=exif)


def decode(content: bytes, options: DecodingOptions | None = None) -> npt.NDArray[np.uint8]:
    """Return the grey values of a file; it asserts that the file is a usable image."""
    decoded = decode_file(content, options or DecodingOptions())
    assert decoded.image is not None, decoded.problem
    return decoded.image


def find_problem(content: bytes, options: DecodingOptions | None = None) -> tuple[Outcome, str]:
    """Return the problem of a file; it asserts that the file is no usable image."""
    decoded: DecodedFile = decode_file(content, options or DecodingOptions())
    assert decoded.problem is not None
    return decoded.problem


class Drawing(NamedTuple):
    """A drawn face of 80x64 pixels in the modes in which files store it."""

    colour: Image.Image
    grey: Image.Image
    transparent: Image.Image


@cache
def draw() -> Drawing:
    """Return the face; its left columns are transparent in one of the images."""
    rng = np.random.default_rng(1)
    face = draw_face(3, rng, 80)[:64]
    tint = np.array([1.0, 0.85, 0.7])
    colour = Image.fromarray(np.rint(face[..., None] * tint).astype(np.uint8))
    transparent = colour.convert("RGBA")
    opacity = np.full(face.shape, 255, np.uint8)
    opacity[:, :20] = 0
    opacity[:, 20:30] = 128
    transparent.putalpha(Image.fromarray(opacity))
    return Drawing(colour, colour.convert("L"), transparent)


@cache
def encode_all() -> dict[str, bytes]:
    """Return a sound file of each format, by a name that begins with the format."""
    colour, grey, transparent = draw()
    values = np.asarray(grey)
    deep = Image.fromarray(values.astype(np.uint16) * 257)
    return {
        "jpeg grey": save(grey, "JPEG", quality=92),
        "jpeg colour": save(colour, "JPEG", quality=92),
        "jpeg progressive": save(colour, "JPEG", quality=92, progressive=True),
        "jpeg restart": save(colour, "JPEG", quality=92, restart_marker_rows=1),
        "jpeg cmyk": save(colour.convert("CMYK"), "JPEG", quality=92),
        "jpeg turned": save_turned(colour, "JPEG"),
        "mpo": save_pages(colour, "MPO"),
        "png grey": save(grey, "PNG"),
        "png bits": save(grey.convert("1"), "PNG"),
        "png colour": save(colour, "PNG"),
        "png palette": save(colour.quantize(64), "PNG"),
        "png transparent": save(transparent, "PNG"),
        "png deep": save(deep, "PNG"),
        "png deep colour": cv2.imencode(".png", np.asarray(colour).astype(np.uint16) * 257)[
            1
        ].tobytes(),
        "png turned": save_turned(colour, "PNG"),
        "png animated": save_pages(colour, "PNG"),
        "gif": save(colour.quantize(200), "GIF"),
        "gif animated": save_pages(colour.quantize(200), "GIF"),
        "bmp grey": save(grey, "BMP"),
        "bmp colour": save(colour, "BMP"),
        "tiff": save(colour, "TIFF"),
        "tiff lzw": save(colour, "TIFF", compression="tiff_lzw"),
        "tiff deflate": save(colour, "TIFF", compression="tiff_deflate"),
        "tiff jpeg": save(colour, "TIFF", compression="jpeg"),
        "tiff fax": save(grey.convert("1"), "TIFF", compression="group4"),
        "tiff deep": save(deep, "TIFF"),
        "tiff floats": save(Image.fromarray(values.astype(np.float32) / 255), "TIFF"),
        "tiff pages": save_pages(colour, "TIFF"),
        "webp": save(colour, "WEBP", quality=92),
        "webp lossless": save(colour, "WEBP", lossless=True),
        "webp transparent": save(transparent, "WEBP", lossless=True),
        "webp animated": save_pages(colour, "WEBP"),
        "avif": save(colour, "AVIF", quality=92),
        "jp2": save(colour, "JPEG2000"),
        "jp2 lossy": save(
            colour, "JPEG2000", quality_mode="rates", quality_layers=[20], irreversible=True
        ),
        "pgm": save(grey, "PPM"),
        "ppm": save(colour, "PPM"),
    }


def damage(content: bytes, rng: random.Random) -> bytes:
    """Return a damaged copy of a file: cut off, with holes, or with changed bytes."""
    changed = bytearray(content)
    start = rng.randrange(len(content))
    end = start + max(1, int(len(content) * rng.uniform(0.01, 0.3)))
    match rng.randrange(10):
        case 0 | 1:
            del changed[start:]
        case 2:
            del changed[start:end]
        case 3:
            changed[start:end] = bytes(len(changed[start:end]))
        case 4:
            changed[start:end] = b"\xff" * len(changed[start:end])
        case 5:  # cut off, with the end marker of a JPEG or the last chunk of a PNG
            changed[start:] = content[-12:] if content.startswith(b"\x89PNG") else content[-2:]
        case 6:
            changed[start:start] = rng.randbytes(end - start)
        case 7:
            changed += changed[start:end]
            del changed[start:end]
        case 8:
            changed[rng.randrange(min(64, len(content)))] = rng.randrange(256)
        case _:
            for _ in range(rng.choice([1, 10, 100])):
                changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)
