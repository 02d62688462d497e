"""From CSV files or folders of images to a dataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from fer_pipeline.config import Config
from fer_pipeline.data import manifest, split_keys
from fer_pipeline.data.dataset_files import DATASET
from fer_pipeline.data.emotions import LabelEncoder
from fer_pipeline.data.ingest_counts import IngestCounts, checksum
from fer_pipeline.data.manifest import Manifest
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import DropReason, QuarantineReason, Split
from fer_pipeline.data.record import LabelResolver
from fer_pipeline.data.split_assignment import ClassThresholds
from fer_pipeline.data.variants import create_variants
from fer_pipeline.data.votes import Votes
from fer_pipeline.errors import DatasetError, InputError
from fer_pipeline.io import versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.paths import parse_path
from fer_pipeline.spark.input_files import InputFiles
from fer_pipeline.spark.load_votes import load_votes
from fer_pipeline.spark.read_records import ParseOptions
from fer_pipeline.spark.record_store import RecordStore, count_records, keys_at_ranks, pixel_moments
from fer_pipeline.spark.session import SparkSession
from fer_pipeline.spark.write_dataset import WrittenSplit, write_splits
from fer_pipeline.spark.write_options import WriteOptions, group_rows
from fer_pipeline.spark.write_quarantine import write_quarantine
from fer_pipeline.text import format_table

log = logging.getLogger(__name__)

_NEEDED = {
    Split.VALIDATION: "training can choose no weights by it and keeps the last",
    Split.TEST: "there is nothing to evaluate on that training has not seen",
}

_NOTHING_LEFT = "no training rows are left after validation and test were drawn"
# A partition is held in the memory of a Python worker: at most so many images or bytes of pixels.
_IMAGES_PER_PARTITION, _PIXELS_PER_PARTITION = 8192, 24 << 20
_FEWEST_PARTITIONS = 8
# A row of FER2013 as text, and how far compression shrinks it.
_BYTES_PER_ROW, _COMPRESSION = 8300, 4
_PACKAGES = ("pyspark", "pyarrow", "numpy", "opencv-python-headless")


def preprocess(
    spark: SparkSession,
    inputs: Sequence[str],
    output: str,
    config: Config,
    *,
    overwrite: bool = False,
) -> Manifest:
    """Makes a dataset.

    Args:
        spark: The session.
        inputs: Files, globs or folders, in any form that Spark reads.
        output: The dataset's folder.
        config: The configuration.
        overwrite: Whether a dataset that is there may be replaced.

    Returns:
        The manifest, as it was published.

    Raises:
        InputError: A source is missing or is not what it should be, too many rows are bad, or the
            votes are not those of the source.
        StorageError: There is a dataset already, or the folder holds something else.
        DatasetError: Nothing is left to train on.
    """
    output_folder = OutputFolder(parse_path(output).absolute(), DATASET, overwrite=overwrite)
    output_folder.ensure_writable()
    sources = InputFiles(spark, inputs, config.input.format)
    partitions = config.output.files_per_split or _partitions(sources, config.image.size)
    reading = _reading(config, sources)
    gathered = RecordStore.read(
        spark, sources, reading, partitions, deduplicate=config.split.deduplicate
    )
    try:
        by_folder = sources.kind == "images"
        books = IngestCounts.of(count_records(gathered, by_folder=by_folder), by_folder)
        if not books.read:
            raise InputError(
                f"{', '.join(inputs)}: holds no record; each line of a CSV below its first is one"
            )
        books.check(config)
        cuts = _cuts(gathered, config, books.pool)
        normalization = _normalization(gathered, cuts, config)
        recipe = _recipe(output_folder.path, cuts, books, normalization, reading.votes, config)
        with output_folder.writing():
            written = write_splits(gathered, recipe)
            bad = sum(books.quarantined.values())
            quarantine = write_quarantine(gathered, output_folder.path, books.offsets, bad)
            result = _manifest(config, books, normalization, written, quarantine)
            data_files = result.all_files()
            output_folder.require_files_visible(data_files)
            output_folder.commit(result.to_json(), config.write, data_files=data_files)
    finally:
        gathered.close()
    return result


def _partitions(sources: InputFiles, size: int) -> int:
    """How many tasks share the images; the same on every machine, and so the files are too."""
    if sources.kind == "images":
        images = sources.files
    else:
        packed = sources.compressed_bytes
        images = (sources.bytes - packed + packed * _COMPRESSION) // _BYTES_PER_ROW
    by_count = images // _IMAGES_PER_PARTITION
    by_size = images * size**2 // _PIXELS_PER_PARTITION
    return max(_FEWEST_PARTITIONS, by_count, by_size)


def _reading(config: Config, sources: InputFiles) -> ParseOptions:
    path = config.labels.votes
    voted, offsets = load_votes(sources, path, config.class_names) if path else (None, {})
    by_usage = config.split.method == "usage"
    labels = LabelEncoder(config.input.emotions, config.class_names)
    return ParseOptions(
        judge=LabelResolver(labels, config.split.usage_to_split if by_usage else None),
        size=config.image.size,
        seed=config.seed,
        usage=by_usage,
        moments=config.image.normalization == "standard",
        enhancement=config.image.enhancement,
        votes=voted,
        offsets=offsets,
    )


def _cuts(
    gathered: RecordStore, config: Config, pool: Mapping[int, int]
) -> dict[int, ClassThresholds]:
    """The cuts of each class, from the ranks of keys that its shares come to."""
    drawn = {
        label: (
            split_keys.rounded_share(config.split.validation or 0, count),
            split_keys.rounded_share(config.split.test or 0, count),
        )
        for label, count in pool.items()
    }
    train = {label: count - sum(drawn[label]) for label, count in pool.items()}
    factors = _factors(config, train)
    ranks = {}
    for label, (validation, test) in drawn.items():
        extra = split_keys.rounded_share(factors[label] % 1, train[label])
        ranks[label] = (validation, validation + test, validation + test + extra)
    keys = keys_at_ranks(gathered, ranks)
    return {
        label: ClassThresholds(
            validation=keys[label, ranks[label][0]],
            test=keys[label, ranks[label][1]],
            extra=keys[label, ranks[label][2]],
            copies=int(factors[label]),
        )
        for label in pool
    }


def _factors(config: Config, train: Mapping[int, int]) -> dict[int, float]:
    """How many times the training images of each class are written, on average."""
    if config.sampling.balance:
        most = max(train.values(), default=0)
        return {label: most / max(count, 1) for label, count in train.items()}
    return {label: config.sampling.oversample.get(config.class_names[label], 1) for label in train}


def _normalization(
    gathered: RecordStore, cuts: Mapping[int, ClassThresholds], config: Config
) -> Normalization:
    match config.image.normalization:
        case "centered":
            return Normalization.centered()
        case "unit":
            return Normalization.unit()
        case "standard":
            count, total, squares = pixel_moments(gathered, cuts)
            if not count:
                raise DatasetError(_NOTHING_LEFT)
            return Normalization.standard(count, total, squares)


def _recipe(
    folder: Path,
    cuts: Mapping[int, ClassThresholds],
    books: IngestCounts,
    normalization: Normalization,
    voted: Votes | None,
    config: Config,
) -> WriteOptions:
    chosen, output = config.variants, config.output
    made = create_variants(chosen.flip, chosen.rotations, chosen.border, config.image.size)
    # Only the size of row groups hangs on these numbers, so they need not be exact.
    pool, split = sum(books.pool.values()), config.split
    expected = {
        Split.TRAIN: int(pool * (1 - (split.validation or 0) - (split.test or 0))) * len(made),
        Split.VALIDATION: books.evaluation[Split.VALIDATION] + int(pool * (split.validation or 0)),
        Split.TEST: books.evaluation[Split.TEST] + int(pool * (split.test or 0)),
    }
    return WriteOptions(
        folder=folder,
        cuts=cuts,
        offsets=books.offsets,
        variants=made,
        classes=config.class_names,
        normalization=normalization if config.image.dtype == "float32" else None,
        group_rows={
            s: output.row_group_rows or group_rows(n, config.image.size)
            for s, n in expected.items()
        },
        compression=output.compression,
        seed=config.seed,
        votes=voted if config.labels.target == "soft" else None,
    )


def _manifest(
    config: Config,
    books: IngestCounts,
    normalization: Normalization,
    written: Mapping[Split, WrittenSplit],
    quarantine: list[str],
) -> Manifest:
    classes = config.class_names
    kept = sum(sum(part.originals) for part in written.values())
    left = kept + sum(books.dropped.values()) + sum(books.quarantined.values())
    if books.read != left:
        raise RuntimeError(f"{books.read} records were read, {left} are accounted for")
    if not written[Split.TRAIN].files:
        raise DatasetError(_NOTHING_LEFT)
    for split, part in written.items():
        missing = [name for name, n in zip(classes, part.originals, strict=True) if not n]
        if part.files and missing:
            log.warning("the %s split has no image of: %s", split, ", ".join(missing))
    for split, needs in _NEEDED.items():
        if not written[split].files:
            log.warning("the %s split is empty: %s; split.%s draws one", split, needs, split)
    return Manifest(
        created=versions.utc_timestamp(),
        image=manifest.ImageInfo(
            size=config.image.size,
            dtype=config.image.dtype,
            normalization=normalization,
            enhancement=config.image.enhancement,
        ),
        labels=_labels(config),
        classes=classes,
        files=[file for part in written.values() for file in part.files],
        counts={s: dict(zip(classes, w.counts, strict=True)) for s, w in written.items()},
        rows=manifest.RowCounts(
            read=books.read,
            kept={s: dict(zip(classes, w.originals, strict=True)) for s, w in written.items()},
            dropped={cause: books.dropped[cause] for cause in DropReason},
            quarantined={reason: books.quarantined[reason] for reason in QuarantineReason},
            written=sum(sum(part.counts) for part in written.values()),
        ),
        quarantine=quarantine,
        sources=books.sources,
        checksum=checksum(sum(part.checksum for part in written.values())),
        versions=versions.package_versions(*_PACKAGES),
        config=config.to_dict(),
    )


def _labels(config: Config) -> manifest.LabelInfo:
    path = config.labels.votes
    name = None if path is None else parse_path(path).name
    return manifest.LabelInfo(votes=name, target=config.labels.target)


def summary(made: Manifest, output: str) -> str:
    """The result of the job for a terminal: the books, and rows per split and class."""
    rows = made.rows
    kept = sum(sum(of_split.values()) for of_split in rows.kept.values())
    table = [[name, *(f"{made.counts[split][name]:,}" for split in Split)] for name in made.classes]
    table.append(["all", *(f"{made.row_count(split):,}" for split in Split)])
    header = ["", *(str(split) for split in Split)]
    lines = [format_table(table, header, ["left", "right", "right", "right"]), ""]
    lines.append(
        f"{rows.read:,} records read = {kept:,} kept + {sum(rows.dropped.values()):,} dropped"
        f" + {sum(rows.quarantined.values()):,} quarantined; {rows.written:,} rows written"
    )
    for what, why in (("dropped", rows.dropped), ("quarantined", rows.quarantined)):
        lines += [f"  {what}, {name}: {count:,}" for name, count in why.items() if count]
    lines.append(f"checksum {made.checksum}")
    lines.append(f"dataset {output}")
    return "\n".join(lines)
