"""FER2013's CSV and the forms that it has in the wild, a batch of lines at a time."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fer_pipeline.accounting import Reason
from fer_pipeline.errors import InputError
from fer_pipeline.pixels import PixelError, parse_pixel_rows, parse_pixels, square_side
from fer_pipeline.rows import Fault, Raw

_BOM = b"\xef\xbb\xbf"
_ROWS_FOR_SIZE = 20

# A field holds a whole image: 512x512 pixels take up to a megabyte.
csv.field_size_limit(1 << 24)


@dataclass(frozen=True)
class Layout:
    """Where a file keeps what.

    Attributes:
        fields: How many fields a row has.
        pixels: The position of the pixel string among them.
        emotion: The position of the label; None where the file has none.
        usage: The position of the usage; None where the file has none.
        pixel_count: How many pixels an image of the file has; None until a row has shown it.
    """

    fields: int
    pixels: int
    emotion: int | None
    usage: int | None
    pixel_count: int | None = None


def read_header(line: bytes, source: str, *, labelled: bool, usage: bool) -> Layout:
    """Reads a header: names in any order and case, with any space around them.

    Args:
        line: The file's first line that is not blank.
        source: The file, for messages.
        labelled: Whether there must be an emotion column.
        usage: Whether there must be a usage column.

    Raises:
        InputError: A column is missing or there twice.
    """
    fields = split_fields(line.removeprefix(_BOM)) or []
    names = [field.decode("utf-8", "replace").strip().lower() for field in fields]
    found = ", ".join(name[:20] for name in names[:6])
    for name in ("pixels", "emotion", "usage"):
        if names.count(name) > 1:
            raise InputError(f"{source}: the header names {name} twice: {found}")
    for name, needed in (("pixels", True), ("emotion", labelled), ("usage", usage)):
        if needed and name not in names:
            hint = "; split.method=stratified needs none" if name == "usage" else ""
            raise InputError(f"{source}: no column {name} in its first line (got: {found}){hint}")

    def position(name: str) -> int | None:
        return names.index(name) if name in names else None

    return Layout(len(names), names.index("pixels"), position("emotion"), position("usage"))


def split_fields(line: bytes) -> list[bytes] | None:
    """Splits a line at its commas; None where its quotes do not close."""
    if b'"' not in line:
        return line.split(b",")
    try:
        # Latin-1 keeps every byte, whatever the encoding is.
        row = next(csv.reader([line.decode("latin-1")], strict=True, skipinitialspace=True))
    except csv.Error:
        return None
    return [field.encode("latin-1") for field in row]


def is_blank(line: bytes) -> bool:
    """Whether a line is none: only white space, or only a byte order mark."""
    return not line.removeprefix(_BOM).strip()


def with_pixel_count(layout: Layout, lines: Sequence[bytes]) -> Layout:
    """Learns the images' size from what most of the first rows have, if that is a square's."""
    counts = Counter[int]()
    for line in lines[:_ROWS_FOR_SIZE]:
        fields = split_fields(line)
        if fields is not None and len(fields) == layout.fields:
            counts[len(fields[layout.pixels].split())] += 1
    squares = [count for count, _ in counts.most_common() if square_side(count)]
    return replace(layout, pixel_count=squares[0]) if squares else layout


def parse_rows(lines: Sequence[bytes], layout: Layout) -> list[Raw]:
    """Parses rows.

    Args:
        lines: Lines of the file, none of them blank or the header.
        layout: What the header says.

    Returns:
        One record for each line; those of sound rows share one array of images.
    """
    parsed: list[Raw | None] = [None] * len(lines)
    sound: list[int] = []
    fields_of: list[list[bytes]] = []
    for index, line in enumerate(lines):
        fields = split_fields(line)
        if fields is None or len(fields) != layout.fields:
            detail = "a quote that does not close" if fields is None else f"{len(fields)} fields"
            fault = Fault(Reason.BROKEN, f"{detail}, expected {layout.fields} fields")
            parsed[index] = Raw(None, None, line, None, fault)
        else:
            sound.append(index)
            fields_of.append(fields)
    texts = [fields[layout.pixels] for fields in fields_of]
    images, faults = _images(texts, layout.pixel_count)
    for row, (index, fields) in enumerate(zip(sound, fields_of, strict=True)):
        found = faults.get(row)
        parsed[index] = Raw(
            _text(fields, layout.emotion),
            _text(fields, layout.usage),
            lines[index],
            None if found or images is None else images[row],
            found,
        )
    return [raw for raw in parsed if raw is not None]


def _images(
    texts: Sequence[bytes], count: int | None
) -> tuple[npt.NDArray[np.uint8] | None, dict[int, Fault]]:
    faults: dict[int, Fault]
    if count is not None:
        side = math.isqrt(count)
        values, errors = parse_pixel_rows(texts, count)
        faults = {row: Fault(error.reason, str(error)) for row, error in errors.items()}
        return values.reshape(-1, side, side), faults
    # No row has yet shown the size: none of these can be an image, and each has its own reason.
    faults = {}
    for row, text in enumerate(texts):
        try:
            faults[row] = Fault(
                Reason.PIXEL_COUNT, f"{len(parse_pixels(text))} pixels are no square image"
            )
        except PixelError as error:
            faults[row] = Fault(error.reason, str(error))
    return None, faults


def _text(fields: Sequence[bytes], position: int | None) -> str | None:
    return None if position is None else fields[position].decode("utf-8", "replace")
