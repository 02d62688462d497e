"""Computation of the columns of records: label, split, image hash, sampling key, pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.image_notes import add_constant_notes
from fer_pipeline.data.image_preparation import prepare_images
from fer_pipeline.data.label_resolver import LabelResolver, ResolvedLabels, apply_votes
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.record_batch import ParsedRecords, Pixels, make_excerpt
from fer_pipeline.data.split_keys import compute_sampling_key, hash_images
from fer_pipeline.data.votes import Votes
from fer_pipeline.spark.read_records import RecordGroups, SourceRecords
from fer_pipeline.spark.steps import error_context

RECORD_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("block", pa.int64()),  # start of the record's block in the file, in bytes
        ("position", pa.int32()),  # 0-based position of the record within the block
        ("outcome", pa.int8()),  # see `outcomes.Outcome`
        ("detail", pa.string()),  # error of a quarantined record, or notes on an image
        ("excerpt", pa.string()),  # excerpt of a quarantined record
        ("fingerprint", pa.int64()),  # hash of image, label and usage
        ("code", pa.int32()),  # numeric value of the label text, -1 if not a number
        ("label", pa.int32()),  # class index, -1 if the record has no class
        ("split", pa.int8()),  # code of the split given by the usage, -1 if none
        ("image_hash", pa.binary()),  # null exactly if there is no image
        ("key", pa.int64()),  # see `split_keys.compute_sampling_key`
        ("pixel_sum", pa.int64()),  # of the resized image; null if not requested
        ("pixel_squares", pa.int64()),
    ]
)
"""The columns of a record, without the pixels."""


@dataclass(frozen=True)
class RecordOptions:
    """Options for the processing of records; sent to Spark's workers.

    Attributes:
        resolver: Converter of label and usage texts to classes and splits.
        size: Height and width of the resized images, in pixels.
        seed: Seed of the sampling keys, pseudo-random numbers that assign images to splits.
        compute_moments: Whether to compute the sums of pixels and of squared pixels, from which the
            mean and standard deviation of a split are computed.
        enhancement: Enhancement of the images before resizing.
        votes: Annotators' votes that replace the labels of the source; None to use the labels of
            the source.
        offsets: Number of the first record of each block, the part of a file that one Spark task
            reads. It is only needed to assign votes to records.
    """

    resolver: LabelResolver
    size: int
    seed: int
    compute_moments: bool = False
    enhancement: Enhancement = field(default_factory=Enhancement)
    votes: Votes | None = None
    offsets: BlockOffsets = field(default_factory=BlockOffsets)


class RecordTable(NamedTuple):
    """Processed records.

    Attributes:
        columns: The columns of RECORD_SCHEMA, one row for each record.
        images: Resized images of the m records that have an image, in the order of the records,
            uint8 of shape (m, size, size).
    """

    columns: pa.RecordBatch
    images: Pixels


def build_record_tables(groups: RecordGroups, options: RecordOptions) -> Iterator[RecordTable]:
    """Build one table for each batch of records: labels, hashes and resized images.

    Args:
        groups: Groups of batches of records, as yielded by a `RecordReader`.
        options: Rules for labels, image size, seed and further settings.

    Yields:
        The table of each batch, with one row for each record.
    """
    for records in chain.from_iterable(groups):
        with error_context(f"labelling, hashing and resizing records of {records.sources[0]}"):
            yield _build_table(records, options)


def _build_table(records: SourceRecords, options: RecordOptions) -> RecordTable:
    """Compute the columns of RECORD_SCHEMA and the resized images of a batch of records."""
    parsed = records.parsed
    labels = _resolve_labels(records, options)
    errors = parsed.errors
    errors.update(labels.errors)
    has_image = errors.outcomes == Outcome.KEPT
    hashes = hash_images(parsed.images, has_image)
    images = prepare_images(parsed.images, has_image, options.size, options.enhancement)
    notes = add_constant_notes(parsed.notes, images, has_image)
    excerpts = {row: make_excerpt(parsed.texts[row]) for row in errors.details}
    rows = range(len(parsed))
    columns = {
        "source": records.sources,
        "block": records.blocks,
        "position": records.positions,
        "outcome": np.where(has_image, labels.drops, errors.outcomes),
        "detail": [errors.details.get(row) or notes.get(row) for row in rows],
        "excerpt": [excerpts.get(row) for row in rows],
        "fingerprint": _compute_fingerprints(parsed, hashes),
        "code": labels.codes,
        "label": labels.labels,
        "split": labels.splits,
        "image_hash": hashes,
        "key": _compute_sampling_keys(hashes, records.positions, options.seed),
        **_compute_pixel_moments(images, has_image, options),
    }
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field, column in zip(RECORD_SCHEMA, columns.values(), strict=True)
    ]
    return RecordTable(pa.RecordBatch.from_arrays(arrays, schema=RECORD_SCHEMA), images)


def _resolve_labels(records: SourceRecords, options: RecordOptions) -> ResolvedLabels:
    """Determine the classes and splits of records from their label and usage texts.

    If the options contain annotators' votes, the votes replace the label texts.
    """
    parsed = records.parsed
    labels = options.resolver.resolve(parsed.emotions, parsed.usages)
    if options.votes is None:
        return labels
    numbers = options.offsets.compute_record_numbers(
        records.sources, records.blocks, records.positions
    )
    source = records.sources[0].as_py()
    return apply_votes(labels, options.votes, numbers, parsed.usages, source)


def _compute_sampling_keys(
    hashes: Sequence[bytes | None], positions: npt.NDArray[np.int32], seed: int
) -> list[int]:
    """Return the sampling key of each record, by which records are assigned to splits.

    The key is computed from the hash of the image and the seed, so copies of an image have the same
    key. A record without an image belongs to no split; its key is its position, which only serves
    to distribute such records over the Spark tasks.

    Args:
        hashes: Image hash of each record; None for a record without an image.
        positions: Position of each record within its block, the part of a file that one Spark task
            reads.
        seed: Seed of the keys.
    """
    return [
        position if content is None else compute_sampling_key(content, seed)
        for content, position in zip(hashes, positions.tolist(), strict=True)
    ]


def _compute_fingerprints(parsed: ParsedRecords, hashes: Sequence[bytes | None]) -> list[int]:
    """Return the fingerprint of each record: a signed 64-bit hash of its image, label and usage.

    For a record without an image, the text of the record is hashed instead of the image.

    Args:
        parsed: Parsed records.
        hashes: Image hash of each record; None for a record without an image.
    """
    fingerprints = []
    for content, text, emotion, usage in zip(
        hashes, parsed.texts, parsed.emotions, parsed.usages, strict=True
    ):
        labels = f"\0{emotion}\0{usage}".encode("utf-8", "replace")
        digest = hashlib.blake2b((content or text) + labels, digest_size=8).digest()
        fingerprints.append(int.from_bytes(digest, "little", signed=True))
    return fingerprints


def _compute_pixel_moments(
    images: Pixels, has_image: npt.NDArray[np.bool_], options: RecordOptions
) -> dict[str, pa.Array]:
    """Compute the sum of the pixels and the sum of the squared pixels of each record.

    Args:
        images: Resized images of the m records that have an image, uint8 of shape (m, size, size).
        has_image: Whether each record has an image, bool of shape (n,).
        options: Options of the records; `compute_moments` turns the computation on.

    Returns:
        The columns `pixel_sum` and `pixel_squares`: 0 for records without an image; null for all
        records if `options.compute_moments` is false.
    """
    if not options.compute_moments:
        nulls = pa.nulls(len(has_image), pa.int64())
        return {"pixel_sum": nulls, "pixel_squares": nulls}
    # Not -1: the size of a dimension cannot be inferred if there are no images.
    flat = images.reshape(len(images), options.size**2)
    sums = np.zeros(len(has_image), np.int64)
    squares = np.zeros(len(has_image), np.int64)
    sums[has_image] = flat.sum(axis=1, dtype=np.int64)
    squares[has_image] = np.square(flat, dtype=np.int64).sum(axis=1)
    return {"pixel_sum": pa.array(sums), "pixel_squares": pa.array(squares)}
