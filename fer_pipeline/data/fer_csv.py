"""FER2013's CSV in its various forms, parsed a batch of lines at a time."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.pixel_strings import (
    PixelError,
    parse_pixel_rows,
    parse_pixels,
    square_image_size,
)
from fer_pipeline.data.record_batch import ParsedRecords, Pixels, RecordErrors
from fer_pipeline.errors import InputError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ROWS_FOR_SIZE = 20  # rows that decide on the number of pixels

# A field holds a whole image: 512x512 pixels take up to a megabyte.
csv.field_size_limit(1 << 24)


@dataclass(frozen=True)
class CsvLayout:
    """The positions of a file's columns.

    Attributes:
        fields: Number of fields in a row.
        pixels: Position of the pixel string among them.
        emotion: Position of the label; None if the file has none.
        usage: Position of the usage; None if the file has none.
        pixel_count: Number of pixels of each image of the file; None until a row has shown it.
    """

    fields: int
    pixels: int
    emotion: int | None
    usage: int | None
    pixel_count: int | None = None


@dataclass(frozen=True)
class RequiredColumns:
    """The columns that a file must have besides its pixels.

    Attributes:
        emotion: Whether there must be labels.
        usage: Whether there must be usages.
    """

    emotion: bool
    usage: bool


def read_header(line: bytes, source: str, required: RequiredColumns) -> CsvLayout:
    """Read a header: names in any order and case, with any space around them.

    Args:
        line: First line of the file that is not blank.
        source: Name of the file, for messages.
        required: Columns that must be there.

    Raises:
        InputError: A column is missing or appears twice.
    """
    fields = split_fields(line.removeprefix(_BYTE_ORDER_MARK)) or []
    names = [field.decode("utf-8", "replace").strip().lower() for field in fields]
    shown_names = ", ".join(name[:20] for name in names[:6])
    for name in ("pixels", "emotion", "usage"):
        if names.count(name) > 1:
            raise InputError(f"{source}: the header names {name} twice: {shown_names}")
    for name, is_required in (
        ("pixels", True),
        ("emotion", required.emotion),
        ("usage", required.usage),
    ):
        if is_required and name not in names:
            hint = "; split.method=stratified needs none" if name == "usage" else ""
            raise InputError(
                f"{source}: no column {name} in its first line (got: {shown_names}){hint}"
            )
    positions = {name: position for position, name in enumerate(names)}
    return CsvLayout(
        fields=len(names),
        pixels=positions["pixels"],
        emotion=positions.get("emotion"),
        usage=positions.get("usage"),
    )


def split_fields(line: bytes) -> list[bytes] | None:
    """Split a line at its commas; return None if its quotes do not close."""
    if b'"' not in line:
        return line.split(b",")
    try:
        # Latin-1 keeps every byte, whatever the encoding is.
        row = next(csv.reader([line.decode("latin-1")], strict=True, skipinitialspace=True))
    except csv.Error:
        return None
    return [field.encode("latin-1") for field in row]


def is_blank(line: bytes) -> bool:
    """Return whether a line holds only white space, or only a byte order mark."""
    return not line.removeprefix(_BYTE_ORDER_MARK).strip()


def infer_pixel_count(layout: CsvLayout, lines: Sequence[bytes]) -> CsvLayout:
    """Return the layout with the number of pixels that most of the first rows have.

    Args:
        layout: Layout of the file.
        lines: First rows of the file, none of them blank or the header.

    Returns:
        The layout as it is if no row has the pixels of a square image.
    """
    counts = Counter[int]()
    for line in lines[:_ROWS_FOR_SIZE]:
        fields = split_fields(line)
        if fields is not None and len(fields) == layout.fields:
            counts[len(fields[layout.pixels].split())] += 1
    square_counts = [count for count, _ in counts.most_common() if square_image_size(count)]
    return replace(layout, pixel_count=square_counts[0]) if square_counts else layout


def parse_rows(lines: Sequence[bytes], layout: CsvLayout) -> ParsedRecords:
    """Parse rows of one file.

    Args:
        lines: Lines of the file, none of them blank or the header.
        layout: Layout of the file.

    Returns:
        One record for each line, the images uint8 of shape (n, side, side).
    """
    emotions: list[str | None] = []
    usages: list[str | None] = []
    pixel_texts: list[bytes] = []
    broken_lines: dict[int, str] = {}
    for row, line in enumerate(lines):
        fields = split_fields(line)
        if fields is None or len(fields) != layout.fields:
            fault = "a quote that does not close" if fields is None else f"{len(fields)} fields"
            broken_lines[row] = f"{fault}, expected {layout.fields} fields"
            fields = [b""] * layout.fields
        emotions.append(_field_text(fields, layout.emotion))
        usages.append(_field_text(fields, layout.usage))
        pixel_texts.append(fields[layout.pixels])
    images, errors = _parse_images(pixel_texts, layout.pixel_count)
    for row, detail in broken_lines.items():
        emotions[row] = usages[row] = None
        errors.add(row, Outcome.BROKEN_LINE, detail)
    return ParsedRecords(emotions, usages, lines, images, errors)


def _parse_images(texts: Sequence[bytes], pixel_count: int | None) -> tuple[Pixels, RecordErrors]:
    if pixel_count is not None:
        side = math.isqrt(pixel_count)
        values, errors = parse_pixel_rows(texts, pixel_count)
        return values.reshape(-1, side, side), errors
    # No row has shown the size yet: none of these can be an image, and each has its own reason.
    errors = RecordErrors(len(texts))
    for row, text in enumerate(texts):
        try:
            count = len(parse_pixels(text))
        except PixelError as error:
            errors.add(row, error.outcome, str(error))
        else:
            errors.add(row, Outcome.PIXEL_COUNT, f"{count} pixels are no square image")
    return np.zeros((len(texts), 0, 0), np.uint8), errors


def _field_text(fields: Sequence[bytes], position: int | None) -> str | None:
    return None if position is None else fields[position].decode("utf-8", "replace")
