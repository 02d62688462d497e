"""The work of the preprocess job in Spark, after the checks that need no Spark."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from fer_pipeline.config import Config
from fer_pipeline.data import manifest
from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.emotions import LabelEncoder
from fer_pipeline.data.fer_csv import RequiredColumns
from fer_pipeline.data.image_decoding import CropReader, ImageReader
from fer_pipeline.data.image_notes import log_notes
from fer_pipeline.data.ingest_counts import IngestCounts, format_checksum
from fer_pipeline.data.label_resolver import LabelResolver
from fer_pipeline.data.manifest import Manifest
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import DropReason, QuarantineReason, Split
from fer_pipeline.data.split_assignment import ClassThresholds
from fer_pipeline.data.variants import create_variants
from fer_pipeline.data.votes import Votes
from fer_pipeline.errors import DatasetError, InputError
from fer_pipeline.faces.photographs import FaceOptions, SingleFaceReader
from fer_pipeline.io import versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.paths import parse_path
from fer_pipeline.spark.class_thresholds import find_class_thresholds
from fer_pipeline.spark.file_kinds import COMPRESSION_FACTOR, warn_about_unreadable_files
from fer_pipeline.spark.input_files import InputFiles, open_input_files
from fer_pipeline.spark.record_columns import RecordOptions
from fer_pipeline.spark.record_statistics import compute_pixel_moments, count_records
from fer_pipeline.spark.record_store import RecordStore
from fer_pipeline.spark.session import SparkSession
from fer_pipeline.spark.vote_offsets import compute_vote_offsets
from fer_pipeline.spark.write_dataset import WrittenSplit, write_splits
from fer_pipeline.spark.write_options import WriteOptions, choose_row_group_size
from fer_pipeline.spark.write_quarantine import write_quarantine

log = logging.getLogger(__name__)

_EMPTY_SPLIT_WARNINGS = {
    Split.VALIDATION: "training cannot select the best weights and keeps the last",
    Split.TEST: "there are no images for an evaluation that training has not seen",
}

_NOTHING_LEFT = "no training rows are left after validation and test were sampled"

# A partition must fit in the memory of a Python worker.
_MAX_IMAGES_PER_PARTITION = 8192
_MAX_PIXELS_PER_PARTITION = 24 << 20
_MIN_PARTITIONS = 8

_BYTES_PER_ROW = 8300
"""Average size of a row of FER2013's CSV file, in bytes."""

_PACKAGES = ("pyspark", "pyarrow", "numpy", "opencv-python-headless", "pillow")


def write_dataset(
    spark: SparkSession,
    inputs: Sequence[str],
    votes: Votes | None,
    config: Config,
    output_folder: OutputFolder,
) -> Manifest:
    """Create a dataset from CSV files or folders of images; see `preprocess.preprocess`.

    Args:
        spark: Spark session.
        inputs: Input files, globs or folders.
        votes: Annotators' votes on the emotion of each image, or None if there are no votes.
        config: Configuration.
        output_folder: Folder of the dataset.

    Raises:
        InputError: An input is missing or invalid, too many records are quarantined, or the votes
            do not match the input.
        StorageError: The folder cannot be written.
        DatasetError: No training records are left.
    """
    files = open_input_files(spark, inputs, config.input.format)
    if files.kind == "csv" and config.input.faces == "detect":
        raise InputError(
            f"{', '.join(inputs)}: is a CSV of crops; prepare it with input.faces: crop"
        )
    options = _build_record_options(config, files, votes)
    reader = files.create_reader(
        RequiredColumns(emotion=True, usage=config.split.method == "usage"),
        _choose_image_reader(config),
    )
    partition_count = config.output.files_per_split or _choose_partition_count(
        files, config.image.size
    )
    deduplicate = config.split.deduplicate
    if not deduplicate and config.split.method == "usage":
        log.info("split.deduplicate is false: copies of images of other splits stay in training")
    store = RecordStore.from_reader(
        spark, reader, options, partition_count, deduplicate=deduplicate
    )
    try:
        counts = _count_records(store, files, config)
        thresholds = find_class_thresholds(store, config, counts.train_by_class)
        normalization = _choose_normalization(store, thresholds, config)
        write_options = _build_write_options(
            output_folder.path, thresholds, counts, normalization, options.votes, config
        )
        with output_folder.lock_for_writing():
            written = write_splits(store, write_options)
            quarantine = write_quarantine(
                store, output_folder.path, counts.offsets, counts.quarantined.total()
            )
            published = _build_manifest(config, counts, normalization, written, quarantine)
            data_files = published.all_files()
            output_folder.require_files_visible(data_files)
            output_folder.commit(published.to_json(), config.write, data_files=data_files)
    finally:
        store.close()
    return published


def _choose_partition_count(files: InputFiles, size: int) -> int:
    """Choose the number of Spark partitions from the number of images and their size.

    For CSV files, the number of images is estimated from the size of the files. The number of
    partitions does not depend on the machine, so that the dataset's files are the same everywhere.

    Args:
        files: Input files.
        size: Height and width of the stored images, in pixels.
    """
    if files.kind == "images":
        image_count = files.file_count
    else:
        compressed_byte_count = files.compressed_byte_count
        text_byte_count = files.byte_count - compressed_byte_count
        text_byte_count += compressed_byte_count * COMPRESSION_FACTOR
        image_count = text_byte_count // _BYTES_PER_ROW
    by_count = image_count // _MAX_IMAGES_PER_PARTITION
    by_size = image_count * size**2 // _MAX_PIXELS_PER_PARTITION
    return max(_MIN_PARTITIONS, by_count, by_size)


def _choose_image_reader(config: Config) -> ImageReader:
    """Return the function with which Spark's workers read an image file."""
    if config.input.faces == "crop":
        return CropReader(config.input.decoding)
    options = FaceOptions("detect", config.faces.detector_options, config.image.size)
    return SingleFaceReader(config.input.decoding, options)


def _build_record_options(config: Config, files: InputFiles, votes: Votes | None) -> RecordOptions:
    """Collect the options for reading labels and images from the input records.

    Args:
        config: Configuration.
        files: Input files, whose order the votes must match.
        votes: Annotators' votes on the emotion of each image, or None if there are no votes.

    Raises:
        InputError: The votes do not match the input.
    """
    offsets = BlockOffsets() if votes is None else compute_vote_offsets(files, votes)
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


def _count_records(store: RecordStore, files: InputFiles, config: Config) -> IngestCounts:
    """Count the records by outcome (the split, or the reason to drop or quarantine a record).

    Also check that records for training are left and that not too many records are quarantined. A
    warning is logged if numeric labels may mean other emotions than in FER2013.

    Args:
        store: All records.
        files: Input files.
        config: Configuration.

    Raises:
        InputError: There are no records, or too many of them are quarantined.
        DatasetError: No training records are left.
    """
    by_folder = files.kind == "images"
    tallies = count_records(store, by_folder=by_folder)
    counts = IngestCounts.from_tallies(tallies, by_folder=by_folder)
    if not counts.read:
        raise InputError(
            f"{', '.join(files.paths)}: contains no records; a CSV needs lines below its header"
        )
    counts.require_usable_records(config.input.max_quarantined_fraction)
    counts.warn_about_low_codes(config.input.emotions)
    warn_about_unreadable_files(counts.file_problems)
    log_notes(counts.notes)
    return counts


def _choose_normalization(
    store: RecordStore, thresholds: Mapping[int, ClassThresholds], config: Config
) -> Normalization:
    """Return the configured normalisation, computed from the training images if necessary.

    Args:
        store: All records.
        thresholds: Thresholds that assign the images of a class to the splits, by class index.
        config: Configuration.

    Raises:
        DatasetError: No training images are left to compute the normalisation from.
    """
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


def _build_write_options(
    folder: Path,
    thresholds: Mapping[int, ClassThresholds],
    counts: IngestCounts,
    normalization: Normalization,
    votes: Votes | None,
    config: Config,
) -> WriteOptions:
    """Collect the options for writing the Parquet files of a dataset.

    Args:
        folder: Folder of the dataset.
        thresholds: Thresholds that assign the images of a class to the splits, by class index.
        counts: Numbers of records, from which the size of the row groups is chosen.
        normalization: Normalisation of the dataset. It is applied only if the images are stored as
            float32.
        votes: Annotators' votes on the emotion of each image, or None if there are no votes. They
            are stored only if the training targets are soft.
        config: Configuration.
    """
    variants = create_variants(
        config.variants.flip, config.variants.rotations, config.variants.border, config.image.size
    )
    expected_rows = _estimate_row_counts(counts, config, len(variants))
    return WriteOptions(
        folder=folder,
        thresholds=thresholds,
        offsets=counts.offsets,
        variants=variants,
        classes=config.class_names,
        normalization=normalization if config.image.dtype == "float32" else None,
        group_rows={
            split: config.output.row_group_rows or choose_row_group_size(rows, config.image.size)
            for split, rows in expected_rows.items()
        },
        compression=config.output.compression,
        seed=config.seed,
        votes=votes if config.labels.target == "soft" else None,
    )


def _estimate_row_counts(
    counts: IngestCounts, config: Config, variant_count: int
) -> dict[Split, int]:
    """Estimate the number of rows in each split, without the oversampling of rare classes.

    Args:
        counts: Numbers of records.
        config: Configuration with the fractions for validation and test.
        variant_count: Number of stored variants of each training image, including the original.
    """
    pool = counts.train_by_class.total()
    validation, test = config.split.validation or 0, config.split.test or 0
    heldout = counts.heldout_by_split
    return {
        Split.TRAIN: int(pool * (1 - validation - test)) * variant_count,
        Split.VALIDATION: heldout[Split.VALIDATION] + int(pool * validation),
        Split.TEST: heldout[Split.TEST] + int(pool * test),
    }


def _build_manifest(
    config: Config,
    counts: IngestCounts,
    normalization: Normalization,
    written: Mapping[Split, WrittenSplit],
    quarantine: list[str],
) -> Manifest:
    """Check that no record is missing, and build the manifest of the dataset.

    Args:
        config: Configuration.
        counts: Numbers of records by outcome.
        normalization: Normalisation of the dataset.
        written: Summary of the written files of each split.
        quarantine: Paths of the files of quarantined (invalid) records, relative to the dataset's
            folder.

    Raises:
        DatasetError: The train split is empty.
        RuntimeError: The numbers of records do not add up, which is a bug in this package.
    """
    classes = config.class_names
    _check_written_records(counts, written, classes)
    return Manifest(
        created=versions.format_current_time(),
        image=manifest.ImageInfo(
            size=config.image.size,
            dtype=config.image.dtype,
            normalization=normalization,
            enhancement=config.image.enhancement,
        ),
        labels=_describe_labels(config),
        classes=classes,
        files=[file for written_split in written.values() for file in written_split.files],
        counts={s: dict(zip(classes, w.counts, strict=True)) for s, w in written.items()},
        rows=manifest.RowCounts(
            read=counts.read,
            kept={s: dict(zip(classes, w.originals, strict=True)) for s, w in written.items()},
            dropped={reason: counts.dropped[reason] for reason in DropReason},
            quarantined={reason: counts.quarantined[reason] for reason in QuarantineReason},
            written=sum(sum(written_split.counts) for written_split in written.values()),
        ),
        notes=dict(counts.notes),
        quarantine=quarantine,
        sources=counts.sources,
        checksum=format_checksum(sum(written_split.checksum for written_split in written.values())),
        versions=versions.collect_package_versions(*_PACKAGES),
        config=config.to_dict(),
    )


def _check_written_records(
    counts: IngestCounts, written: Mapping[Split, WrittenSplit], classes: Sequence[str]
) -> None:
    """Check that no record is missing and that the train split is not empty.

    Each record that was read must have been written to a split, dropped or quarantined. Warnings
    are logged for an empty validation or test split, and for classes that a split lacks.

    Args:
        counts: Numbers of records by outcome.
        written: Summary of the written files of each split.
        classes: Names of the classes.

    Raises:
        DatasetError: The train split is empty.
        RuntimeError: The numbers of records do not add up, which is a bug in this package.
    """
    kept_count = sum(sum(written_split.originals) for written_split in written.values())
    accounted_count = kept_count + counts.dropped.total() + counts.quarantined.total()
    if counts.read != accounted_count:
        raise RuntimeError(f"{counts.read} records were read, {accounted_count} are accounted for")
    if not written[Split.TRAIN].files:
        raise DatasetError(_NOTHING_LEFT)
    for split, written_split in written.items():
        missing = [name for name, n in zip(classes, written_split.originals, strict=True) if not n]
        if written_split.files and missing:
            log.warning("the %s split has no image of: %s", split, ", ".join(missing))
    for split, consequence in _EMPTY_SPLIT_WARNINGS.items():
        if not written[split].files:
            log.warning(
                "the %s split is empty: %s; split.%s samples one", split, consequence, split
            )


def _describe_labels(config: Config) -> manifest.LabelInfo:
    """Return the manifest's entry `labels`.

    It contains the training target and the name of the file with the annotators' votes, if any.
    """
    path = config.labels.votes
    file_name = None if path is None else parse_path(path).name
    return manifest.LabelInfo(votes=file_name, target=config.labels.target)
