"""Writing a dataset's files, in the Python workers.

Every task writes files of its own, under names that nothing else has, and says what it wrote. What
a killed or repeated task leaves is named by no manifest, and the next clean-up deletes it: there is
nothing to commit and nothing to rename.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fer_pipeline import schema, selection
from fer_pipeline.accounting import Split
from fer_pipeline.arrow import binary_column
from fer_pipeline.augmentation import Variant
from fer_pipeline.manifest import DataFile
from fer_pipeline.publication import DATASET
from fer_pipeline.selection import SPLITS
from fer_pipeline.spark.passes import Gathered, Partition
from fer_pipeline.spark.recipe import Recipe
from fer_pipeline.spark.records import record_numbers
from fer_pipeline.spark.session import task_number
from fer_pipeline.storage import parquet_file

# Level 1: pixels hardly compress further, and level 3 takes twice the time.
_ZSTD_LEVEL = 1

_RESULT = pa.schema(
    [
        ("split", pa.int32()),
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("counts", pa.list_(pa.int64())),
        ("originals", pa.list_(pa.int64())),
        ("checksum", pa.int64()),
    ]
)
_RESULT_DDL = (
    "split int, path string, rows bigint, bytes bigint, counts array<bigint>,"
    " originals array<bigint>, checksum bigint"
)


@dataclass(frozen=True)
class Written:
    """What was written of one split.

    Attributes:
        files: The data files.
        counts: Rows by class.
        originals: Images by class.
        checksum: The sum of the rows' hashes.
    """

    files: list[DataFile]
    counts: list[int]
    originals: list[int]
    checksum: int


def write_splits(gathered: Gathered, recipe: Recipe) -> dict[Split, Written]:
    """Writes all splits in one pass.

    Args:
        gathered: The records.
        recipe: What is written of them.

    Returns:
        What was written of each split.
    """

    def write(partition: Partition) -> pa.Table:
        rows = list(_write_partition(partition, recipe))
        return pa.Table.from_pylist(rows, _RESULT)

    # Data files number in the thousands at most; this is all that reaches the driver.
    rows = gathered.each(write, _RESULT_DDL, images=True).collect()
    found = {}
    for code, split in enumerate(SPLITS):
        of_split = sorted((row for row in rows if row.split == code), key=lambda row: row.path)
        found[split] = Written(
            [DataFile(path=r.path, split=split, rows=r.rows, bytes=r.bytes) for r in of_split],
            [sum(r.counts[label] for r in of_split) for label in range(len(recipe.classes))],
            [sum(r.originals[label] for r in of_split) for label in range(len(recipe.classes))],
            sum(row.checksum for row in of_split),
        )
    return found


def _write_partition(partition: Partition, recipe: Recipe) -> Iterator[dict[str, object]]:
    """Writes up to one file for each split, and says what is in it."""
    split, copies = selection.place(
        partition.candidates, partition.outcome, partition.drawable, recipe.cuts
    )
    # Records without an image have none in `images` either.
    has_image = partition.facts.column("image_hash").is_valid().to_numpy()
    image_of = np.cumsum(has_image) - 1
    number = task_number()
    for code, name in enumerate(SPLITS):
        here = np.flatnonzero(split == code)
        if not len(here):
            continue
        variants = recipe.variants if name is Split.TRAIN else recipe.variants[:1]
        rows = _Rows(partition, recipe, name, variants, here, copies[here], image_of)
        rows.shuffle(np.random.default_rng([recipe.seed, number]))
        # Readers take the files in the order of their names: for a seed it is always the same.
        path = f"split={name}/{DATASET.unique_name(number)}"
        size = rows.write(recipe.folder / path)
        labels = partition.candidates.label
        classes = len(recipe.classes)
        yield {
            "split": code,
            "path": path,
            "rows": len(rows.origin),
            "bytes": size,
            "counts": np.bincount(labels[rows.origin], minlength=classes).tolist(),
            "originals": np.bincount(labels[here], minlength=classes).tolist(),
            "checksum": rows.checksum,
        }


class _Rows:
    """The rows of one file: which variant of which record stands where."""

    def __init__(
        self,
        partition: Partition,
        recipe: Recipe,
        split: Split,
        variants: Sequence[Variant],
        records: npt.NDArray[np.int64],
        copies: npt.NDArray[np.int64],
        image_of: npt.NDArray[np.int64],
    ) -> None:
        self._partition, self._recipe, self._split = partition, recipe, split
        self._variants, self._image_of = variants, image_of
        many = len(variants)
        self.origin = np.tile(np.repeat(records, copies), many)
        self.variant = np.repeat(np.arange(many), copies.sum())
        starts = np.repeat(np.cumsum(copies) - copies, copies)
        self.replica = np.tile(np.arange(copies.sum()) - starts, many)
        self.checksum = 0

    def shuffle(self, rng: np.random.Generator) -> None:
        """Mixes all rows of the file, so that the variants of an image stand far apart."""
        order = rng.permutation(len(self.origin))
        self.origin, self.variant = self.origin[order], self.variant[order]
        self.replica = self.replica[order]

    def write(self, path: Path) -> int:
        """Writes the rows, a row group at a time, and returns the file's size in bytes."""
        recipe = self._recipe
        step = recipe.group_rows[self._split]
        with (
            parquet_file(path) as sink,
            pq.ParquetWriter(
                sink,
                recipe.columns,
                compression=recipe.compression,
                compression_level=_ZSTD_LEVEL if recipe.compression == "zstd" else None,
                # Pixels and hashes hardly ever repeat; a dictionary of them is built in vain.
                use_dictionary=[
                    *("image.list.element", "emotion", "source", "variant", "label"),
                    f"{schema.VOTES}.list.element",
                ],
                write_statistics=["label", "record", "source"],
            ) as writer,
        ):
            for start in range(0, len(self.origin), step):
                writer.write_table(self._table(slice(start, start + step)))
        return path.stat().st_size

    def _table(self, part: slice) -> pa.Table:
        origin, variant, replica = self.origin[part], self.variant[part], self.replica[part]
        facts = self._partition.facts.take(pa.array(origin))
        pixels = self._pixels(origin, variant)
        hashes = facts.column("image_hash").to_pylist()
        record = record_numbers(facts, self._recipe.offsets)
        votes = self._recipe.votes
        shares = None if votes is None else votes.distribution(record)
        content = pixels if shares is None else np.hstack([pixels, shares.view(np.uint8)])
        labels = self._partition.candidates.label[origin]
        self._add_checksum(content, hashes, labels, variant, replica)
        names = pa.array([made.name for made in self._variants])
        label = facts.column("label")
        columns = {
            "image": self._stored(pixels),
            "label": label,
            "emotion": pa.array(self._recipe.classes).take(label.combine_chunks()),
            "source": facts.column("source"),
            "record": record,
            "image_hash": [value.hex() for value in hashes],
            "variant": names.take(pa.array(variant)),
            "replica": replica.astype(np.int32),
        }
        if shares is not None:
            columns[schema.VOTES] = _lists(shares)
        return pa.table(columns, schema=self._recipe.columns)

    def _pixels(
        self, origin: npt.NDArray[np.int64], variant: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint8]:
        images = self._partition.images
        made = np.empty((len(origin), *images.shape[1:]), np.uint8)
        for index, kind in enumerate(self._variants):
            here = variant == index
            made[here] = kind.apply(images[self._image_of[origin[here]]])
        return made.reshape(len(origin), -1)

    def _stored(self, pixels: npt.NDArray[np.uint8]) -> pa.Array:
        if self._recipe.normalization is None:
            return binary_column(pixels)
        return _lists(self._recipe.normalization.table()[pixels])

    def _add_checksum(
        self,
        content: npt.NDArray[np.uint8],
        hashes: Sequence[bytes],
        labels: npt.NDArray[np.int32],
        variant: npt.NDArray[np.int64],
        replica: npt.NDArray[np.int64],
    ) -> None:
        names = [made.name for made in self._variants]
        for row, image_hash in enumerate(hashes):
            said = f"{self._split} {labels[row]} {names[variant[row]]} {replica[row]} ".encode()
            digest = hashlib.blake2b(said + image_hash, digest_size=8)
            digest.update(content[row])
            self.checksum += int.from_bytes(digest.digest(), "little")
        # Kept to 64 bits, as a signed number for Spark.
        self.checksum = (self.checksum + 2**63) % 2**64 - 2**63


def _lists(values: npt.NDArray[np.float32]) -> pa.Array:
    """A column of equally long lists, from an array of shape (n, length)."""
    ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values.ravel()))
