"""CSV files of random images, in the columns of FER2013."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def make_image(number: int, side: int = 8) -> Image:
    """Return a random square image; equal numbers give equal images."""
    return np.random.default_rng(number).integers(0, 256, (side, side), np.uint8)


def format_row(code: int | str, image: Image, usage: str = "Training") -> str:
    """Return a CSV row `emotion,pixels,Usage`."""
    return f"{code},{' '.join(map(str, image.ravel().tolist()))},{usage}"


def write_csv(path: Path, rows: Sequence[str], header: str = "emotion,pixels,Usage") -> Path:
    """Write a CSV from its rows, in a folder that may be missing, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in (header, *rows)), encoding="utf-8")
    return path
