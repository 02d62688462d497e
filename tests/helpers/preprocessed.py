"""Datasets written by `preprocess`, read with pyarrow only, and the rows that they should have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq

from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.emotions import FER2013
from fer_pipeline.data.manifest import Manifest
from fer_pipeline.data.split_keys import hash_image
from tests.helpers.fer_csv import Image

Row = dict[str, Any]


@dataclass(frozen=True)
class PreprocessedDataset:
    """Content of the files that a dataset's manifest names.

    Attributes:
        folder: The dataset's folder.
        manifest: The dataset's manifest.
        rows: Rows of all splits, in the order of the input.
        quarantine: Rows of the quarantine, in stored order.
    """

    folder: Path
    manifest: Manifest
    rows: list[Row]
    quarantine: list[Row]

    @classmethod
    def read(cls, folder: Path) -> PreprocessedDataset:
        """Read a dataset."""
        manifest = StoredDataset.open(folder).manifest
        rows = []
        for file in manifest.files:
            # pyarrow's dataset reader would add a column for the folder `split=train`.
            table = pq.ParquetFile(folder / file.path).read()
            rows += [{"split": str(file.split), **row} for row in table.to_pylist()]
        quarantine = [
            row
            for path in manifest.quarantine
            for row in pq.ParquetFile(folder / path).read().to_pylist()
        ]
        return cls(folder, manifest, sorted(rows, key=_get_sort_key), quarantine)

    def rows_from(self, source: Path) -> list[Row]:
        """Return the rows of an input file."""
        return [row for row in self.rows if row["source"] == str(source)]


def _get_sort_key(row: Row) -> tuple[Any, ...]:
    """Return the key that sorts rows in the order of the input."""
    return row["source"], row["record"], row["variant"], row["replica"]


class Prepare(Protocol):
    """Type of the fixture `prepare`."""

    def __call__(
        self,
        *inputs: Path | str,
        to: Path | str | None = None,
        overwrite: bool = False,
        **config: Any,
    ) -> PreprocessedDataset:
        """Preprocess inputs and read the dataset back."""


def build_expected_row(
    source: Path | str,
    record: int,
    label: int,
    image: Image,
    split: str = "train",
    variant: str = "original",
    replica: int = 0,
    *,
    original: Image | None = None,
    classes: Sequence[str] = FER2013,
) -> Row:
    """Return the dataset row of an image.

    Args:
        source: Path of the input file.
        record: Number of the record in the file.
        label: Index of the class.
        image: Image as it is stored.
        split: Split of the row.
        variant: Variant of the image.
        replica: Number of the replica.
        original: Image in the input, if the stored one is resized, enhanced or a variant.
        classes: Classes of the dataset.
    """
    return {
        "split": split,
        "image": image.tobytes(),
        "label": label,
        "emotion": classes[label],
        "source": str(source),
        "record": record,
        "image_hash": hash_image(image if original is None else original).hex(),
        "variant": variant,
        "replica": replica,
    }
