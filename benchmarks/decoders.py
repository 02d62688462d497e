"""Decoders of image files: what they do with damage, and their speed on sound files.

Each damaged file is refused, or decoded with at most small differences to the sound file, or
decoded to another image without a word. Only the last outcome harms a dataset. The comparison is
the source of docs/decisions/0009-decoders.md.
"""

from __future__ import annotations

import io
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from benchmarks.figure import Figure
from fer_pipeline.data.decoder_messages import capture_messages
from fer_pipeline.data.decoder_process import Crash, DecoderProcess
from fer_pipeline.data.image_decoding import DecodingOptions, decode_file
from tests.helpers.image_files import damage, draw, encode_all, save

_FILES_PER_FORMAT = 100
_MAX_PIXELS = 10_000_000
_TIME_LIMIT = 20.0  # seconds for one file
_LARGE_DIFFERENCE = 16  # grey levels
_ROUNDS = 5
_DECODINGS = 1000

Pixels = npt.NDArray[np.uint8]
Decode = Callable[[bytes], Pixels | None]


def _decode_with_pillow(content: bytes) -> Pixels | None:
    """Decode a file with Pillow alone, in the usual way."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content))
            if image.size[0] * image.size[1] > _MAX_PIXELS:
                return None
            image.draft("L", image.size)
            return np.asarray(ImageOps.exif_transpose(image).convert("L"))
    except Exception:  # Pillow raises errors of many types for damaged files
        return None


def _decode_with_opencv(content: bytes) -> Pixels | None:
    """Decode a file with OpenCV alone, in the usual way."""
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)  # type: ignore[return-value]
    except cv2.error:
        return None


def _decode_with_both(content: bytes) -> Pixels | None:
    """Decode a file as the jobs do: the header with Pillow, the pixels with OpenCV."""
    return decode_file(content, DecodingOptions(max_pixels=_MAX_PIXELS)).image


_DECODERS: dict[str, Decode] = {
    "Pillow": _decode_with_pillow,
    "OpenCV": _decode_with_opencv,
    "fer_pipeline": _decode_with_both,
}


def run() -> list[Figure]:
    """Measure all decoders with the same damaged files."""
    figures = []
    for name, decode in _DECODERS.items():
        outcomes, slowest = _count_outcomes(decode)
        totals = sum(outcomes.values(), Counter[str]())
        figures.append(
            Figure(f"damaged files: {name}", f"{_describe(totals)}, slowest {slowest:.1f} s")
        )
        if decode is _decode_with_both:
            for file_format, counts in outcomes.items():
                figures.append(Figure(f"damaged files: {name}, {file_format}", _describe(counts)))
    return figures + _compare_speeds()


def _count_outcomes(decode: Decode) -> tuple[dict[str, Counter[str]], float]:
    """Decode the damaged files.

    Returns:
        The number of files by outcome, by format; and the longest time for one file, in seconds.
    """
    rng = random.Random(0)
    names = [name for name in encode_all() for _ in range(_FILES_PER_FORMAT)]
    contents = [damage(encode_all()[name], rng) for name in names]
    process = DecoderProcess[bytes, tuple[Pixels | None, float]](
        lambda content: _measure_time(decode, content), _TIME_LIMIT
    )
    outcomes: dict[str, Counter[str]] = {}
    slowest = 0.0
    for name, answer in zip(names, process.map(contents), strict=True):
        counts = outcomes.setdefault(name.split()[0], Counter())
        if isinstance(answer, Crash):
            counts["crashed"] += 1
            continue
        image, seconds = answer
        slowest = max(slowest, seconds)
        counts[_classify(image, _decode_sound_file(name, decode))] += 1
    process.close()
    return outcomes, slowest


def _measure_time(decode: Decode, content: bytes) -> tuple[Pixels | None, float]:
    """Decode a file, and return the image and the time in seconds."""
    start = time.perf_counter()
    with capture_messages():  # thousands of lines
        image = decode(content)
    return image, time.perf_counter() - start


@cache
def _decode_sound_file(name: str, decode: Decode) -> Pixels | None:
    """Return the image of a sound file; None if the decoder does not read the format."""
    return decode(encode_all()[name])


def _classify(image: Pixels | None, sound_image: Pixels | None) -> str:
    """Return the outcome of a damaged file."""
    if image is None:
        return "refused"
    if sound_image is not None and image.shape == sound_image.shape:
        differences = np.abs(image.astype(int) - sound_image)
        if (differences > _LARGE_DIFFERENCE).mean() <= 0.01:
            return "decoded as the sound file"
    return "decoded to another image"


def _describe(counts: Counter[str]) -> str:
    """Return the shares of the outcomes as text."""
    total = counts.total()
    return ", ".join(f"{counts[outcome] / total:.1%} {outcome}" for outcome in sorted(counts))


def _compare_speeds() -> list[Figure]:
    """Measure the time for a crop of 48x48 pixels, relative to OpenCV alone, in the same rounds."""
    crop = draw().grey.resize((48, 48))
    figures = []
    for kind in ("PNG", "JPEG"):
        content = save(crop, kind)
        times: dict[str, list[float]] = {name: [] for name in _DECODERS}
        for _ in range(_ROUNDS):
            for name, decode in _DECODERS.items():
                start = time.perf_counter()
                for _ in range(_DECODINGS):
                    decode(content)
                times[name].append(time.perf_counter() - start)
        for name in ("Pillow", "fer_pipeline"):
            ratio = np.median(np.divide(times[name], times["OpenCV"]))
            figures.append(Figure(f"time for a {kind} of 48x48: {name}", f"{ratio:.2f} of OpenCV"))
    return figures
