"""The kinds of input files, CSV files and images, recognised by the names of the files.

If CSV files are read, files with other names are ignored with a warning. If images are read, every
file counts as an image. Otherwise an image with an unusual name would be lost without a message.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fer_pipeline.errors import InputError

log = logging.getLogger(__name__)

CSV_NAME = r"(?i)\.csv(\.gz|\.bz2)?$"
IMAGE_NAME = r"(?i)\.(jpe?g|mpo|png|apng|bmp|p[bgpn]m|tiff?|webp|jp2|gif|avif|hei[cf])$"
COMPRESSED_NAME = r"(?i)\.(gz|bz2)$"
"""Regular expressions for the names of CSV files, images, and compressed files."""

COMPRESSION_FACTOR = 4
"""Approximate compression ratio of FER2013's CSV file."""

NAMED_FILES = 10
"""Number of unreadable files up to which each is named in the log."""


def warn_about_ignored_files(count: int) -> None:
    """Log a warning about files that are not read because other files are named like CSV files."""
    if count:
        log.warning("%d files that are not named .csv are not read", count)


def warn_about_unreadable_files(problems: Mapping[str, str]) -> None:
    """Log a warning about each file that cannot be read; about many, only the first are named.

    Args:
        problems: Why a file cannot be read, or not to its end, by its name.
    """
    for name, problem in sorted(problems.items())[:NAMED_FILES]:
        log.warning("%s: %s", name, problem)
    if len(problems) > NAMED_FILES:
        log.warning("further files cannot be read")


def choose_kind(path_list: str, counts: Mapping[str, int]) -> str:
    """Choose how to read the files, as `csv` or as `images`, from the number of files of each kind.

    Args:
        path_list: Paths given by the user, as text for error messages.
        counts: Number of files by kind: `csv`, `images` and `other`.

    Raises:
        InputError: There are no files, both CSV files and images, or only other files.
    """
    if not sum(counts.values()):
        raise InputError(f"{path_list}: contains no files; give a CSV file or a folder of images")
    if counts.get("csv") and counts.get("images"):
        raise InputError(
            f"{path_list}: holds both CSV files ({counts['csv']}) and images ({counts['images']});"
            " say which are meant with input.format: csv or images"
        )
    if counts.get("csv") or counts.get("images"):
        return "csv" if counts.get("csv") else "images"
    raise InputError(
        f"{path_list}: none of its {counts['other']} files is named like a CSV or an image; say"
        " what they are with input.format: csv or images"
    )
