"""Dataset files, written by the Python workers.

Every task writes files of its own, under names that nothing else has, and returns what it wrote.
The files of a killed or repeated task are named by no manifest, and the next clean-up deletes them:
there is nothing to commit and nothing to rename.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Row

from fer_pipeline.data import schema
from fer_pipeline.data.arrow import build_binary_column, build_list_column
from fer_pipeline.data.dataset_files import DATASET, split_folder
from fer_pipeline.data.manifest import DataFile
from fer_pipeline.data.outcomes import Split
from fer_pipeline.data.record_batch import Pixels
from fer_pipeline.data.split_assignment import assign_splits
from fer_pipeline.io.storage import create_data_file
from fer_pipeline.spark.record_store import DeduplicatedPartition, RecordStore
from fer_pipeline.spark.session import get_task_index
from fer_pipeline.spark.steps import error_context
from fer_pipeline.spark.write_options import WriteOptions

# Level 1: pixels hardly compress further, and level 3 takes twice the time.
_ZSTD_LEVEL = 1

# A dictionary of pixels or hashes is built in vain, as they hardly ever repeat.
_DICTIONARY_COLUMNS = [
    "image.list.element",
    "emotion",
    "source",
    "variant",
    "label",
    f"{schema.VOTES}.list.element",
]
_STATISTICS_COLUMNS = ["label", "record", "source"]

_WRITTEN_SCHEMA = pa.schema(
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
_WRITTEN_DDL = (
    "split int, path string, rows bigint, bytes bigint, counts array<bigint>,"
    " originals array<bigint>, checksum bigint"
)


@dataclass(frozen=True)
class WrittenSplit:
    """The files of one split.

    Attributes:
        files: The data files.
        counts: Rows by class.
        originals: Images by class.
        checksum: Sum of the rows' hashes.
    """

    files: list[DataFile]
    counts: list[int]
    originals: list[int]
    checksum: int


def write_splits(store: RecordStore, options: WriteOptions) -> dict[Split, WrittenSplit]:
    """Write all splits in one pass.

    Args:
        store: The records.
        options: Choices of the files.
    """

    def write(partition: DeduplicatedPartition) -> pa.Table:
        return pa.Table.from_pylist(list(_write_partition(partition, options)), _WRITTEN_SCHEMA)

    # One row for each file, thousands at most: this is all that reaches the driver.
    rows = store.map_partitions(write, _WRITTEN_DDL, with_pixels=True).collect()
    return {split: _sum_up(split, rows, len(options.classes)) for split in Split}


def _sum_up(split: Split, rows: Sequence[Row], class_count: int) -> WrittenSplit:
    files = sorted((row for row in rows if row.split == split.code), key=lambda row: row.path)
    labels = range(class_count)
    return WrittenSplit(
        files=[DataFile(path=f.path, split=split, rows=f.rows, bytes=f.bytes) for f in files],
        counts=[sum(file.counts[label] for file in files) for label in labels],
        originals=[sum(file.originals[label] for file in files) for label in labels],
        checksum=sum(file.checksum for file in files),
    )


def _write_partition(
    partition: DeduplicatedPartition, options: WriteOptions
) -> Iterator[Mapping[str, object]]:
    """Write up to one file for each split, and yield what is in it."""
    records = partition.to_records()
    splits, copies = assign_splits(records, options.thresholds)
    number = get_task_index()
    class_count = len(options.classes)
    for split in Split:
        rows = np.flatnonzero(splits == split.code)
        if not len(rows):
            continue
        writer = _SplitFileWriter(partition, options, split, rows, copies[rows])
        writer.shuffle(np.random.default_rng([options.seed, number]))
        # Readers take the files in the order of their names: for a seed it is always the same.
        path = f"{split_folder(split)}/{DATASET.make_unique_name(number)}"
        with error_context(f"writing {path}"):
            size = writer.write(options.folder / path)
        yield {
            "split": split.code,
            "path": path,
            "rows": len(writer.rows),
            "bytes": size,
            "counts": np.bincount(records.label[writer.rows], minlength=class_count).tolist(),
            "originals": np.bincount(records.label[rows], minlength=class_count).tolist(),
            "checksum": writer.checksum,
        }


class _SplitFileWriter:
    """Writes one file: for each of its rows, which variant and replica of which record it is."""

    def __init__(
        self,
        partition: DeduplicatedPartition,
        options: WriteOptions,
        split: Split,
        records: npt.NDArray[np.int64],
        copies: npt.NDArray[np.int64],
    ) -> None:
        self._partition = partition
        self._options = options
        self._split = split
        self._variants = options.variants if split is Split.TRAIN else options.variants[:1]
        has_image = partition.columns.column("image_hash").is_valid().to_numpy()
        self._image_of_record = np.cumsum(has_image) - 1
        variant_count, copy_count = len(self._variants), int(copies.sum())
        self.rows = np.tile(np.repeat(records, copies), variant_count)
        self._variant = np.repeat(np.arange(variant_count), copy_count)
        first_copy = np.repeat(np.cumsum(copies) - copies, copies)
        self._replica = np.tile(np.arange(copy_count) - first_copy, variant_count)
        self.checksum = 0

    def shuffle(self, rng: np.random.Generator) -> None:
        """Shuffle all rows of the file, so that the variants of an image are far apart."""
        order = rng.permutation(len(self.rows))
        self.rows = self.rows[order]
        self._variant = self._variant[order]
        self._replica = self._replica[order]

    def write(self, path: Path) -> int:
        """Write the rows, a row group at a time, and return the file's size in bytes."""
        options = self._options
        step = options.group_rows[self._split]
        with (
            create_data_file(path) as sink,
            pq.ParquetWriter(
                sink,
                options.columns,
                compression=options.compression,
                compression_level=_ZSTD_LEVEL if options.compression == "zstd" else None,
                use_dictionary=_DICTIONARY_COLUMNS,
                write_statistics=_STATISTICS_COLUMNS,
            ) as writer,
        ):
            for start in range(0, len(self.rows), step):
                writer.write_table(self._build_group(slice(start, start + step)))
        return path.stat().st_size

    def _build_group(self, part: slice) -> pa.Table:
        rows, variant, replica = self.rows[part], self._variant[part], self._replica[part]
        records = self._partition.columns.take(pa.array(rows))
        pixels = self._apply_variants(rows, variant)
        hashes = records.column("image_hash").to_pylist()
        record_numbers = self._options.offsets.compute_record_numbers(
            records.column("source"),
            records.column("block"),
            records.column("position").to_numpy(),
        )
        label = records.column("label").combine_chunks()
        columns = {
            "image": self._store_pixels(pixels),
            "label": label,
            "emotion": pa.array(self._options.classes).take(label),
            "source": records.column("source"),
            "record": record_numbers,
            "image_hash": [image_hash.hex() for image_hash in hashes],
            "variant": pa.array([v.name for v in self._variants]).take(pa.array(variant)),
            "replica": replica.astype(np.int32),
        }
        content = pixels
        if self._options.votes is not None:
            distribution = self._options.votes.compute_distributions(record_numbers)
            content = np.hstack([pixels, distribution.view(np.uint8)])
            columns[schema.VOTES] = build_list_column(distribution)
        self._add_to_checksum(content, hashes, label.to_pylist(), variant, replica)
        return pa.table(columns, schema=self._options.columns)

    def _apply_variants(
        self, rows: npt.NDArray[np.int64], variant: npt.NDArray[np.int64]
    ) -> Pixels:
        """Return the pixels of rows, uint8 of shape (n, size * size)."""
        images = self._partition.images
        pixels = np.empty((len(rows), *images.shape[1:]), np.uint8)
        for index, operation in enumerate(self._variants):
            is_variant = variant == index
            originals = images[self._image_of_record[rows[is_variant]]]
            pixels[is_variant] = operation.apply(originals)
        return pixels.reshape(len(rows), -1)

    def _store_pixels(self, pixels: Pixels) -> pa.Array:
        if self._options.normalization is None:
            return build_binary_column(pixels)
        return build_list_column(self._options.normalization.lookup_table()[pixels])

    def _add_to_checksum(
        self,
        content: Pixels,
        hashes: Sequence[bytes],
        labels: Sequence[int],
        variant: npt.NDArray[np.int64],
        replica: npt.NDArray[np.int64],
    ) -> None:
        names = [v.name for v in self._variants]
        rows = zip(content, hashes, labels, variant.tolist(), replica.tolist(), strict=True)
        for pixels, image_hash, label, variant_index, replica_index in rows:
            place = f"{self._split} {label} {names[variant_index]} {replica_index} ".encode()
            digest = hashlib.blake2b(place + image_hash, digest_size=8)
            digest.update(pixels)
            self.checksum += int.from_bytes(digest.digest(), "little")
        # Reduced to 64 bits, as a signed number for Spark.
        self.checksum = (self.checksum + 2**63) % 2**64 - 2**63
