"""Writing of synthetic faces to input files: a FER2013-style CSV, or a folder of face crops."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from fer_pipeline.data.emotions import FER2013 as EMOTIONS
from fer_pipeline.data.synthetic.faces import Image, draw_face

USAGES = ("Training", "PublicTest", "PrivateTest")

BROKEN_KINDS = (
    "pixel_count",
    "pixel_range",
    "pixel_word",
    "emotion",
    "no_pixels",
    "usage",
    "fields",
)
"""Kinds of errors in a CSV row."""

_FER2013_COUNTS = np.array([4953, 547, 5121, 8989, 6077, 4002, 6198])
"""Number of images of each emotion in FER2013, in the order of the label codes."""

_MIN_ROWS_FOR_DUPLICATES = 200


def _break_row(kind: str, code: int, pixels: list[str], usage: str) -> str:
    """Insert an error into a valid row, and return the row as a CSV line.

    Args:
        kind: Kind of the error, one of BROKEN_KINDS.
        code: FER2013's code of the emotion.
        pixels: Grey value of each pixel, as text.
        usage: Usage of the row, one of USAGES.
    """
    left = " ".join(pixels[:99])
    right = " ".join(pixels[100:])
    return {
        "pixel_count": f"{code},{left},{usage}",
        "pixel_range": f"{code},{left} 300 {right},{usage}",
        "pixel_word": f"{code},{left} grey {right},{usage}",
        "emotion": f"9,{' '.join(pixels)},{usage}",
        "no_pixels": f"{code},,{usage}",
        "usage": f"{code},{' '.join(pixels)},Holdout",
        "fields": f"{code}",
    }[kind]


def _plan_duplicates(
    codes: npt.NDArray[np.int64], usages: npt.NDArray[np.str_], valid: npt.NDArray[np.int64]
) -> dict[int, int]:
    """Choose three rows that will repeat the images of earlier rows, as `write_csv` describes.

    Args:
        codes: Label code of each row; changed in place.
        usages: Usage of each row; changed in place.
        valid: Indices of the rows without an error, in ascending order; at least 6.

    Returns:
        For each of the three rows, the earlier row whose image it repeats.
    """
    sources = valid[:3]
    copies = valid[-3:]
    codes[copies], usages[copies] = codes[sources], usages[sources]
    usages[sources[1]], usages[copies[1]] = USAGES[0], USAGES[2]
    codes[copies[2]] = (codes[sources[2]] + 1) % len(EMOTIONS)
    return dict(zip(copies.tolist(), sources.tolist(), strict=True))


def _generate_csv_lines(rows: int, rng: np.random.Generator, broken: int) -> Iterator[str]:
    """Yield the header and the rows of a synthetic CSV file.

    Args:
        rows: Number of rows, including broken rows.
        rng: Random generator.
        broken: Number of rows with an error.
    """
    codes = rng.choice(len(EMOTIONS), rows, p=_FER2013_COUNTS / _FER2013_COUNTS.sum())
    usages = rng.choice(USAGES, rows, p=(0.8, 0.1, 0.1))
    damaged = np.sort(rng.choice(rows, broken, replace=False))
    kinds = {row: BROKEN_KINDS[i % len(BROKEN_KINDS)] for i, row in enumerate(damaged.tolist())}
    valid = np.setdiff1d(np.arange(rows), damaged)
    has_duplicates = rows >= _MIN_ROWS_FOR_DUPLICATES and valid.size >= 6
    sources = _plan_duplicates(codes, usages, valid) if has_duplicates else {}
    pixels_by_source: dict[int, list[str]] = {}
    grey_texts = [str(grey) for grey in range(256)]
    yield "emotion,pixels,Usage\n"
    for row, (code, usage) in enumerate(zip(codes.tolist(), usages.tolist(), strict=True)):
        if row in sources:
            pixels = pixels_by_source[sources[row]]
        else:
            pixels = [grey_texts[grey] for grey in draw_face(code, rng).ravel().tolist()]
        if row in sources.values():
            pixels_by_source[row] = pixels
        if row in kinds:
            yield _break_row(kinds[row], code, pixels, usage) + "\n"
        else:
            yield f"{code},{' '.join(pixels)},{usage}\n"


def write_csv(path: str | os.PathLike[str], rows: int, seed: int = 0, broken: int = 0) -> None:
    """Write a CSV file in FER2013's layout: ``emotion,pixels,Usage``.

    Labels and usages are sampled with approximately FER2013's frequencies. In files with at least
    200 rows, of which at least 6 are valid, three valid rows repeat the image of an earlier row.
    The first has the same label and usage as the earlier row. The second has the usage PrivateTest,
    and the earlier row has the usage Training. The third has a different label.

    Args:
        path: File to write; it appears under this name only when it is complete.
        rows: Number of rows, including broken rows.
        seed: Seed of the file; equal seeds give equal files.
        broken: Number of rows with an error; the BROKEN_KINDS are used in turn.

    Raises:
        ValueError: `broken` is not in [0, rows].
    """
    if not 0 <= broken <= rows:
        raise ValueError(f"broken must be within 0..{rows}, got {broken}")
    temporary = Path(f"{os.fspath(path)}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="ascii", newline="\n") as file:
            file.writelines(_generate_csv_lines(rows, np.random.default_rng(seed), broken))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _draw_crop(code: int, rng: np.random.Generator) -> Image:
    """Draw a random face crop with height and width in [40, 160].

    Returns:
        A grey image of shape (height, width) or a BGR image of shape (height, width, 3), uint8.
    """
    width, height = np.clip(rng.integers(40, 161) * rng.uniform(0.9, 1.1, 2), 40, 160).astype(int)
    square = draw_face(code, rng, int(max(width, height)))
    resized = cv2.resize(square, (int(width), int(height)), interpolation=cv2.INTER_AREA)
    face = np.asarray(resized, np.uint8)
    if rng.random() < 0.5:
        return face
    tint = rng.uniform((0.55, 0.7, 0.9), (0.8, 0.9, 1.0))
    return (face[..., None] * tint).astype(np.uint8)


def write_folder(
    path: str | os.PathLike[str],
    per_class: int,
    seed: int = 0,
    broken: bool = True,
    flat: bool = False,
) -> None:
    """Write a folder of face crops, grey or colour, alternating between PNG and JPEG files.

    Height and width of the crops are in [40, 160] pixels.

    Args:
        path: Folder to write the files to; it is created if it does not exist.
        per_class: Number of crops per emotion.
        seed: Seed of the folder; equal seeds give equal files.
        broken: Whether to add ``empty.png`` (no bytes), ``text.jpg`` (plain text) and
            ``truncated.jpg`` (half a JPEG) directly in the folder.
        flat: Whether to write all crops directly in the folder instead of in one subfolder per
            emotion.
    """
    root, rng = Path(path), np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    for code, name in enumerate(EMOTIONS):
        folder = root if flat else root / name
        folder.mkdir(exist_ok=True)
        for index in range(per_class):
            suffix = (".png", ".jpg")[index % 2]
            encoded = cv2.imencode(suffix, _draw_crop(code, rng))[1].tobytes()
            (folder / f"{name}_{index:04d}{suffix}").write_bytes(encoded)
    if broken:
        jpeg = cv2.imencode(".jpg", draw_face(3, rng, 96))[1].tobytes()
        (root / "empty.png").write_bytes(b"")
        (root / "text.jpg").write_text("This is not an image.\n", encoding="ascii")
        (root / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
