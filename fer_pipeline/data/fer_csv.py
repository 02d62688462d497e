"""Parsing of CSV files in the variants of FER2013's format, one batch of lines at a time."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Sequence
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
_ROWS_FOR_PIXEL_COUNT = 20  # rows from which the number of pixels is inferred

# A field contains a whole image: 512x512 pixels take up to a megabyte.
csv.field_size_limit(1 << 24)


@dataclass(frozen=True)
class CsvLayout:
    """The positions of the columns in a CSV file.

    Attributes:
        fields: Number of fields in a row.
        pixels: Position of the pixel string (the grey values as decimal numbers), from 0.
        emotion: Position of the label, from 0; None if the file has no labels.
        usage: Position of FER2013's column `Usage`, which assigns each image to a split, from 0;
            None if the file has no such column.
        pixel_count: Number of pixels of each image in the file; None if not known yet.
    """

    fields: int
    pixels: int
    emotion: int | None
    usage: int | None
    pixel_count: int | None = None


@dataclass(frozen=True)
class RequiredColumns:
    """The columns that a CSV file must have in addition to the pixels.

    Attributes:
        emotion: Whether the column `emotion`, the labels, is required.
        usage: Whether the column `Usage`, which assigns images to splits, is required.
    """

    emotion: bool
    usage: bool


def parse_header(line: bytes, source: str, required: RequiredColumns) -> CsvLayout:
    """Find the positions of the columns in the header of a CSV file, and check the columns.

    The columns may be in any order. Case and white space around their names are ignored.

    Args:
        line: First line of the file that is not blank.
        source: Name of the file, for error messages.
        required: Columns that the file must have.

    Raises:
        InputError: The column of pixels or a required column is missing, or one of the columns
            `pixels`, `emotion` and `usage` appears twice.
    """
    fields = split_fields(line.removeprefix(_BYTE_ORDER_MARK)) or []
    names = [field.decode("utf-8", "replace").strip().lower() for field in fields]
    shown_names = ", ".join(name[:20] for name in names[:6])
    for name in ("pixels", "emotion", "usage"):
        if names.count(name) > 1:
            raise InputError(f"{source}: the header contains {name} twice: {shown_names}")
    is_required = {"emotion": required.emotion, "pixels": True, "usage": required.usage}
    missing = [name for name in is_required if is_required[name] and name not in names]
    if missing:
        hint = ""
        if "pixels" in missing:
            hint = "; the first line has to name the columns, such as emotion,pixels,Usage"
        elif missing == ["usage"]:
            hint = "; split.method=stratified needs none"
        raise InputError(
            f"{source}: no column {', '.join(missing)} in its first line (got: {shown_names}){hint}"
        )
    positions = {name: position for position, name in enumerate(names)}
    return CsvLayout(
        fields=len(names),
        pixels=positions["pixels"],
        emotion=positions.get("emotion"),
        usage=positions.get("usage"),
    )


def parse_layout(lines: Iterable[bytes], source: str, required: RequiredColumns) -> CsvLayout:
    """Determine the layout (columns and number of pixels) of a CSV file from its first lines.

    Args:
        lines: First lines of the file.
        source: Name of the file, for error messages.
        required: Columns that the file must have.

    Raises:
        InputError: The file lacks a required column, or the header contains a column twice.
    """
    header, *rows = [line for line in lines if not is_blank(line)] or [b""]
    return add_pixel_count(parse_header(header, source, required), rows)


def split_fields(line: bytes) -> list[bytes] | None:
    """Split a line of CSV into fields; return None if a quote is misplaced or not closed."""
    if b'"' not in line:
        return line.split(b",")
    try:
        # Decoding as Latin-1 preserves every byte, whatever the encoding of the file is.
        row = next(csv.reader([line.decode("latin-1")], strict=True, skipinitialspace=True))
    except csv.Error:
        return None
    return [field.encode("latin-1") for field in row]


def is_blank(line: bytes) -> bool:
    """Return whether a line contains only white space, after an optional byte order mark."""
    return not line.removeprefix(_BYTE_ORDER_MARK).strip()


def add_pixel_count(layout: CsvLayout, lines: Sequence[bytes]) -> CsvLayout:
    """Return a copy of a layout with the number of pixels per image, inferred from the first rows.

    The inferred number is the most frequent number of pixels in these rows. Only numbers that give
    a square image of at least 8x8 pixels are considered.

    Args:
        layout: Positions of the columns in the file.
        lines: First rows of the file, without blank lines and the header.

    Returns:
        A copy of the layout with the number of pixels; the layout itself if no row has such a
        number.
    """
    frequencies = Counter[int]()
    for line in lines[:_ROWS_FOR_PIXEL_COUNT]:
        fields = split_fields(line)
        if fields is not None and len(fields) == layout.fields:
            frequencies[len(fields[layout.pixels].split())] += 1
    pixel_counts = [count for count, _ in frequencies.most_common() if square_image_size(count)]
    return replace(layout, pixel_count=pixel_counts[0]) if pixel_counts else layout


def parse_rows(lines: Sequence[bytes], layout: CsvLayout) -> ParsedRecords:
    """Parse rows of one CSV file.

    Args:
        lines: Lines of the file, without blank lines and the header.
        layout: Positions of the columns in the file, and number of pixels of each image.

    Returns:
        One record for each line, with an error if the line does not have the columns of the header
        or its pixels are invalid. The images have shape (n, size, size). If the layout's
        `pixel_count` is None, no image size is known, and every record has an error.
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
        emotions.append(_decode_field(fields, layout.emotion))
        usages.append(_decode_field(fields, layout.usage))
        pixel_texts.append(fields[layout.pixels])
    images, errors = _parse_pixel_texts(pixel_texts, layout.pixel_count)
    for row, detail in broken_lines.items():
        emotions[row] = usages[row] = None
        errors.set_error(row, Outcome.BROKEN_LINE, detail)
    return ParsedRecords(emotions, usages, lines, images, errors)


def _parse_pixel_texts(
    texts: Sequence[bytes], pixel_count: int | None
) -> tuple[Pixels, RecordErrors]:
    """Parse pixel strings (grey values as decimal numbers) to square images.

    Args:
        texts: Pixel string of each row.
        pixel_count: Number of pixels of each image, a square number. If it is None, no image size
            is known: every row gets an error, and its image is empty.

    Returns:
        images: uint8 of shape (n, size, size).
        errors: Errors of the rows with invalid strings.
    """
    if pixel_count is not None:
        image_size = math.isqrt(pixel_count)
        pixels, errors = parse_pixel_rows(texts, pixel_count)
        return pixels.reshape(-1, image_size, image_size), errors
    # The number of pixels is unknown because no row has the pixels of a square image: every row is
    # an error, each with its own reason.
    errors = RecordErrors(len(texts))
    for row, text in enumerate(texts):
        try:
            text_pixel_count = len(parse_pixels(text))
        except PixelError as error:
            errors.set_error(row, error.outcome, str(error))
        else:
            errors.set_error(
                row, Outcome.PIXEL_COUNT, f"{text_pixel_count} pixels, not a square image"
            )
    return np.zeros((len(texts), 0, 0), np.uint8), errors


def _decode_field(fields: Sequence[bytes], position: int | None) -> str | None:
    """Decode the field at a position as UTF-8; return None if the position is None."""
    return None if position is None else fields[position].decode("utf-8", "replace")
