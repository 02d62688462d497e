"""The preprocess job: from CSV files or folders of images to a dataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from fer_pipeline.config import Config
from fer_pipeline.data import manifest
from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.dataset_files import DATASET
from fer_pipeline.data.emotions import LabelEncoder
from fer_pipeline.data.fer_csv import RequiredColumns
from fer_pipeline.data.ingest_counts import IngestCounts, format_checksum
from fer_pipeline.data.label_resolver import LabelResolver
from fer_pipeline.data.manifest import Manifest
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import DropReason, QuarantineReason, Split
from fer_pipeline.data.split_assignment import ClassThresholds
from fer_pipeline.data.variants import create_variants
from fer_pipeline.data.votes import Votes
from fer_pipeline.errors import DatasetError, InputError
from fer_pipeline.io import versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.paths import parse_path
from fer_pipeline.spark.class_thresholds import find_class_thresholds
from fer_pipeline.spark.input_files import InputFiles
from fer_pipeline.spark.load_votes import load_votes
from fer_pipeline.spark.record_columns import RecordOptions
from fer_pipeline.spark.record_statistics import compute_pixel_moments, count_records
from fer_pipeline.spark.record_store import RecordStore
from fer_pipeline.spark.session import SparkSession
from fer_pipeline.spark.write_dataset import WrittenSplit, write_splits
from fer_pipeline.spark.write_options import WriteOptions, choose_group_rows
from fer_pipeline.spark.write_quarantine import write_quarantine
from fer_pipeline.text import format_table

log = logging.getLogger(__name__)

_EMPTY_SPLIT_WARNINGS = {
    Split.VALIDATION: "training can choose no weights by it and keeps the last",
    Split.TEST: "there is nothing to evaluate on that training has not seen",
}

_NOTHING_LEFT = "no training rows are left after validation and test were sampled"

# A partition is held in the memory of a Python worker.
_MAX_IMAGES_PER_PARTITION = 8192
_MAX_PIXELS_PER_PARTITION = 24 << 20
_MIN_PARTITIONS = 8

_BYTES_PER_ROW = 8300
"""Bytes of a row of FER2013 as text."""

_COMPRESSION_FACTOR = 4
"""Factor by which compression shrinks such text."""

_PACKAGES = ("pyspark", "pyarrow", "numpy", "opencv-python-headless")


def preprocess(
    spark: SparkSession,
    inputs: Sequence[str],
    output: str,
    config: Config,
    *,
    overwrite: bool = False,
) -> Manifest:
    """Create a dataset.

    Args:
        spark: The session.
        inputs: Files, globs or folders, in any form that Spark reads.
        output: Folder of the dataset.
        config: The configuration.
        overwrite: Whether an existing dataset may be replaced.

    Returns:
        The manifest, as it was published.

    Raises:
        InputError: A source is missing or invalid, too many rows are bad, or the votes are not
            those on the source.
        StorageError: There is a dataset already, or the folder holds something else.
        DatasetError: Nothing is left to train on.
    """
    output_folder = OutputFolder(parse_path(output).absolute(), DATASET, overwrite=overwrite)
    output_folder.ensure_writable()
    files = InputFiles(spark, inputs, config.input.format)
    options = _record_options(config, files)
    reader = files.create_reader(
        RequiredColumns(emotion=True, usage=config.split.method == "usage")
    )
    partitions = config.output.files_per_split or _choose_partitions(files, config.image.size)
    deduplicate = config.split.deduplicate
    store = RecordStore.read(spark, reader, options, partitions, deduplicate=deduplicate)
    try:
        counts = _count(store, files, config)
        thresholds = find_class_thresholds(store, config, counts.train_by_class)
        normalization = _normalization(store, thresholds, config)
        write_options = _write_options(
            output_folder.path, thresholds, counts, normalization, options.votes, config
        )
        with output_folder.lock_for_writing():
            written = write_splits(store, write_options)
            quarantine = write_quarantine(
                store, output_folder.path, counts.offsets, counts.quarantined.total()
            )
            published = _manifest(config, counts, normalization, written, quarantine)
            data_files = published.all_files()
            output_folder.require_files_visible(data_files)
            output_folder.commit(published.to_json(), config.write, data_files=data_files)
    finally:
        store.close()
    return published


def _choose_partitions(files: InputFiles, size: int) -> int:
    """Return the number of tasks that share the images: the same on every machine.

    So the dataset's files are the same, too.
    """
    if files.kind == "images":
        image_count = files.file_count
    else:
        compressed = files.compressed_byte_count
        text_bytes = files.byte_count - compressed + compressed * _COMPRESSION_FACTOR
        image_count = text_bytes // _BYTES_PER_ROW
    by_count = image_count // _MAX_IMAGES_PER_PARTITION
    by_size = image_count * size**2 // _MAX_PIXELS_PER_PARTITION
    return max(_MIN_PARTITIONS, by_count, by_size)


def _record_options(config: Config, files: InputFiles) -> RecordOptions:
    votes, offsets = None, BlockOffsets()
    if config.labels.votes:
        votes, offsets = load_votes(files, config.labels.votes, config.class_names)
    usage_to_split = config.split.usage_to_split if config.split.method == "usage" else None
    encoder = LabelEncoder(config.input.emotions, config.class_names)
    return RecordOptions(
        resolver=LabelResolver(encoder, usage_to_split),
        size=config.image.size,
        seed=config.seed,
        compute_moments=config.image.normalization == "standard",
        enhancement=config.image.enhancement,
        votes=votes,
        offsets=offsets,
    )


def _count(store: RecordStore, files: InputFiles, config: Config) -> IngestCounts:
    """Count the records, and stop if they would make no good dataset."""
    by_folder = files.kind == "images"
    tallies = count_records(store, by_folder=by_folder)
    counts = IngestCounts.from_tallies(tallies, by_folder=by_folder)
    if not counts.read:
        raise InputError(
            f"{', '.join(files.paths)}: holds no record; each line of a CSV below its first is one"
        )
    counts.require_usable(config.input.max_quarantined_fraction)
    counts.warn_about_low_codes(config.input.emotions)
    return counts


def _normalization(
    store: RecordStore, thresholds: Mapping[int, ClassThresholds], config: Config
) -> Normalization:
    match config.image.normalization:
        case "centered":
            return Normalization.centered()
        case "unit":
            return Normalization.zero_to_one()
        case "standard":
            count, total, squares = compute_pixel_moments(store, thresholds)
            if not count:
                raise DatasetError(_NOTHING_LEFT)
            return Normalization.standard(count, total, squares)


def _write_options(
    folder: Path,
    thresholds: Mapping[int, ClassThresholds],
    counts: IngestCounts,
    normalization: Normalization,
    votes: Votes | None,
    config: Config,
) -> WriteOptions:
    forms, output = config.variants, config.output
    variants = create_variants(forms.flip, forms.rotations, forms.border, config.image.size)
    expected_rows = _expected_rows(counts, config, len(variants))
    return WriteOptions(
        folder=folder,
        thresholds=thresholds,
        offsets=counts.offsets,
        variants=variants,
        classes=config.class_names,
        normalization=normalization if config.image.dtype == "float32" else None,
        group_rows={
            split: output.row_group_rows or choose_group_rows(rows, config.image.size)
            for split, rows in expected_rows.items()
        },
        compression=output.compression,
        seed=config.seed,
        votes=votes if config.labels.target == "soft" else None,
    )


def _expected_rows(counts: IngestCounts, config: Config, variant_count: int) -> dict[Split, int]:
    """Return the approximate rows of each split; only the size of row groups follows from them."""
    pool = counts.train_by_class.total()
    validation, test = config.split.validation or 0, config.split.test or 0
    heldout = counts.heldout_by_split
    return {
        Split.TRAIN: int(pool * (1 - validation - test)) * variant_count,
        Split.VALIDATION: heldout[Split.VALIDATION] + int(pool * validation),
        Split.TEST: heldout[Split.TEST] + int(pool * test),
    }


def _manifest(
    config: Config,
    counts: IngestCounts,
    normalization: Normalization,
    written: Mapping[Split, WrittenSplit],
    quarantine: list[str],
) -> Manifest:
    classes = config.class_names
    _check_written(counts, written, classes)
    return Manifest(
        created=versions.format_current_time(),
        image=manifest.ImageInfo(
            size=config.image.size,
            dtype=config.image.dtype,
            normalization=normalization,
            enhancement=config.image.enhancement,
        ),
        labels=_labels(config),
        classes=classes,
        files=[file for of_split in written.values() for file in of_split.files],
        counts={s: dict(zip(classes, w.counts, strict=True)) for s, w in written.items()},
        rows=manifest.RowCounts(
            read=counts.read,
            kept={s: dict(zip(classes, w.originals, strict=True)) for s, w in written.items()},
            dropped={reason: counts.dropped[reason] for reason in DropReason},
            quarantined={reason: counts.quarantined[reason] for reason in QuarantineReason},
            written=sum(sum(of_split.counts) for of_split in written.values()),
        ),
        quarantine=quarantine,
        sources=counts.sources,
        checksum=format_checksum(sum(of_split.checksum for of_split in written.values())),
        versions=versions.collect_package_versions(*_PACKAGES),
        config=config.to_dict(),
    )


def _check_written(
    counts: IngestCounts, written: Mapping[Split, WrittenSplit], classes: Sequence[str]
) -> None:
    """Check that each record is in a split, dropped or quarantined; warn about gaps."""
    kept_count = sum(sum(of_split.originals) for of_split in written.values())
    accounted = kept_count + counts.dropped.total() + counts.quarantined.total()
    if counts.read != accounted:
        raise RuntimeError(f"{counts.read} records were read, {accounted} are accounted for")
    if not written[Split.TRAIN].files:
        raise DatasetError(_NOTHING_LEFT)
    for split, of_split in written.items():
        missing = [name for name, n in zip(classes, of_split.originals, strict=True) if not n]
        if of_split.files and missing:
            log.warning("the %s split has no image of: %s", split, ", ".join(missing))
    for split, consequence in _EMPTY_SPLIT_WARNINGS.items():
        if not written[split].files:
            log.warning(
                "the %s split is empty: %s; split.%s samples one", split, consequence, split
            )


def _labels(config: Config) -> manifest.LabelInfo:
    path = config.labels.votes
    name = None if path is None else parse_path(path).name
    return manifest.LabelInfo(votes=name, target=config.labels.target)


def format_report(published: Manifest, output: str) -> str:
    """Return the outcome of the job for a terminal: record counts, and rows per split and class.

    Args:
        published: The manifest.
        output: Folder of the dataset.
    """
    rows = published.rows
    kept_count = sum(sum(of_split.values()) for of_split in rows.kept.values())
    lines = [_row_table(published), ""]
    lines.append(
        f"{rows.read:,} records read = {kept_count:,} kept + {sum(rows.dropped.values()):,} dropped"
        f" + {sum(rows.quarantined.values()):,} quarantined; {rows.written:,} rows written"
    )
    for fate, by_reason in (("dropped", rows.dropped), ("quarantined", rows.quarantined)):
        lines += [f"  {fate}, {name}: {count:,}" for name, count in by_reason.items() if count]
    lines.append(f"checksum {published.checksum}")
    lines.append(f"dataset {output}")
    return "\n".join(lines)


def _row_table(published: Manifest) -> str:
    rows = [
        [name, *(f"{published.counts[split][name]:,}" for split in Split)]
        for name in published.classes
    ]
    rows.append(["all", *(f"{published.row_count(split):,}" for split in Split)])
    return format_table(rows, ["", *Split], ["left", "right", "right", "right"])
