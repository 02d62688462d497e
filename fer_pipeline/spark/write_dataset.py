"""Writing of a dataset's files by Spark's Python workers.

Every task writes its own files with unique names and returns a description of the files. Files of a
killed or repeated task are not listed in the manifest, and the next job deletes them. Files are
therefore never renamed.
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
from fer_pipeline.data.dataset_files import DATASET, get_split_folder
from fer_pipeline.data.manifest import DataFile
from fer_pipeline.data.outcomes import Split
from fer_pipeline.data.record_batch import Pixels
from fer_pipeline.data.split_assignment import assign_splits
from fer_pipeline.io.storage import create_data_file
from fer_pipeline.spark.record_store import DeduplicatedPartition, RecordStore
from fer_pipeline.spark.session import get_task_index
from fer_pipeline.spark.steps import error_context
from fer_pipeline.spark.write_options import WriteOptions

# Pixels hardly compress further with level 3, which takes twice the time.
_ZSTD_LEVEL = 1

# Bytes of images and hashes are excluded: they are rarely repeated, so a dictionary is useless.
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
    """Summary of the written files of one split.

    Attributes:
        files: Descriptions of the files.
        counts: Number of rows of each class, in the order of the class indices.
        originals: Number of records of each class. A record gives several rows if mirrored or
            rotated variants are written or if the class is oversampled.
        checksum: Sum of the hashes of all rows.
    """

    files: list[DataFile]
    counts: list[int]
    originals: list[int]
    checksum: int


def write_splits(store: RecordStore, options: WriteOptions) -> dict[Split, WrittenSplit]:
    """Write the Parquet files of all splits; each Spark task writes its own files.

    Args:
        store: All records, with marked duplicates.
        options: Folder, columns, splits and further settings of the files.

    Returns:
        Summary of the written files, by split.
    """

    def write_partition(partition: DeduplicatedPartition) -> pa.Table:
        """Write the files of one partition, and return a table that describes the files."""
        return pa.Table.from_pylist(list(_write_partition(partition, options)), _WRITTEN_SCHEMA)

    # The driver receives one row for each file, at most a few thousand rows.
    rows = store.map_partitions_with_images(write_partition, _WRITTEN_DDL).collect()
    return {split: _summarize_split(split, rows, len(options.classes)) for split in Split}


def _summarize_split(split: Split, rows: Sequence[Row], class_count: int) -> WrittenSplit:
    """Return the list of the files of one split, with their total counts and checksum.

    Args:
        split: Split to summarize.
        rows: One row for each file of any split, with the columns of _WRITTEN_SCHEMA.
        class_count: Number of classes.
    """
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
    """Write the records of a partition, shuffled, to one Parquet file for each split.

    Splits without records get no file. Dropped and quarantined records are not written.

    Args:
        partition: Records with their images.
        options: Folder, columns, splits and further settings of the files.

    Yields:
        Description of each file, with the keys of _WRITTEN_SCHEMA.
    """
    records = partition.to_records()
    splits, copies = assign_splits(records, options.thresholds)
    task_index = get_task_index()
    class_count = len(options.classes)
    for split in Split:
        rows = np.flatnonzero(splits == split.code)
        if not len(rows):
            continue
        writer = _SplitFileWriter(partition, options, split, rows, copies[rows])
        writer.shuffle(np.random.default_rng([options.seed, task_index]))
        # Readers sort the files by name, and the names contain the task index. The order of the
        # rows therefore depends only on the seed.
        path = f"{get_split_folder(split)}/{DATASET.make_data_file_name(task_index)}"
        with error_context(f"writing {path}"):
            byte_count = writer.write(options.folder / path)
        yield {
            "split": split.code,
            "path": path,
            "rows": len(writer.rows),
            "bytes": byte_count,
            "counts": np.bincount(records.label[writer.rows], minlength=class_count).tolist(),
            "originals": np.bincount(records.label[rows], minlength=class_count).tolist(),
            "checksum": writer.checksum,
        }


class _SplitFileWriter:
    """Writer of one Parquet file with records of one partition and split.

    A record gives several rows if it is written in several variants (original, mirrored, rotated)
    or several times for oversampling.

    Attributes:
        rows: Record of each row of the file, as a position in the partition, int64 of shape (n,).
        checksum: Sum of the hashes of the written rows, as a signed 64-bit number.
    """

    def __init__(
        self,
        partition: DeduplicatedPartition,
        options: WriteOptions,
        split: Split,
        records: npt.NDArray[np.int64],
        copies: npt.NDArray[np.int64],
    ) -> None:
        """Plan the rows of the file, without writing yet.

        A training image is written in all variants (original, mirrored, rotated), and each variant
        is written `copies` times. An image of another split is written only as the original.

        Args:
            partition: Records with their images.
            options: Folder, columns, variants and further settings of the files.
            split: Split of the file.
            records: The m records to write, as positions in the partition, of shape (m,).
            copies: Number of times that each record is written, of shape (m,); more than 1 if its
                class is oversampled.
        """
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
        """Shuffle the rows before they are written, so that variants of an image are scattered."""
        order = rng.permutation(len(self.rows))
        self.rows = self.rows[order]
        self._variant = self._variant[order]
        self._replica = self._replica[order]

    def write(self, path: Path) -> int:
        """Write all rows to a Parquet file, and return the size of the file in bytes."""
        options = self._options
        group_rows = options.group_rows[self._split]
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
            for start in range(0, len(self.rows), group_rows):
                writer.write_table(self._build_and_hash_row_group(slice(start, start + group_rows)))
        return path.stat().st_size

    def _build_and_hash_row_group(self, group: slice) -> pa.Table:
        """Build the table of one Parquet row group, and add the hashes of its rows to the checksum.

        Args:
            group: Range of the rows of the file that belong to the row group.
        """
        rows, variant, replica = self.rows[group], self._variant[group], self._replica[group]
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
            "image": self._build_image_column(pixels),
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
        """Create the image of each row by applying the row's variant to the original image.

        Args:
            rows: Positions in the partition of the records that the rows belong to, of shape (n,).
            variant: Variant of each row (original, mirrored or rotated), as an index into
                `self._variants`, of shape (n,).

        Returns:
            The pixels, uint8 of shape (n, size * size).
        """
        images = self._partition.images
        pixels = np.empty((len(rows), *images.shape[1:]), np.uint8)
        for index, operation in enumerate(self._variants):
            is_variant = variant == index
            originals = images[self._image_of_record[rows[is_variant]]]
            pixels[is_variant] = operation.apply(originals)
        return pixels.reshape(len(rows), -1)

    def _build_image_column(self, pixels: Pixels) -> pa.Array:
        """Build the column of images: bytes, or lists of float32 if images are stored normalised.

        Args:
            pixels: Grey values of the images, uint8 of shape (n, size * size).
        """
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
        """Add a hash of each row to the checksum, which does not depend on the order of the rows.

        The hash of a row covers all of the following arguments and the split.

        Args:
            content: Pixels of each row, and its distribution of votes if votes are stored, as uint8
                of shape (n, bytes).
            hashes: Hash of the original image of each row.
            labels: Class index of each row.
            variant: Variant of each row (original, mirrored or rotated), as an index into
                `self._variants`.
            replica: Number of each row, from 0, among the rows with the same record and variant;
                oversampling writes several such rows.
        """
        names = [v.name for v in self._variants]
        rows = zip(content, hashes, labels, variant.tolist(), replica.tolist(), strict=True)
        for row_content, image_hash, label, variant_index, replica_index in rows:
            row_key = f"{self._split} {label} {names[variant_index]} {replica_index} ".encode()
            digest = hashlib.blake2b(row_key + image_hash, digest_size=8)
            digest.update(row_content)
            self.checksum += int.from_bytes(digest.digest(), "little")
        # Spark has only signed integers of 64 bits.
        self.checksum = (self.checksum + 2**63) % 2**64 - 2**63
