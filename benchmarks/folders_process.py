"""Process of the benchmark `folders` that reads images as a job does, and writes nothing.

    python -m benchmarks.folders_process JOB FOLDER

JOB is `preprocess` or `score`. The process starts Spark, reads the images at 48x48 pixels with the
functions of the job, and prints their number.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pyarrow as pa

from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.emotions import FER2013, LabelEncoder
from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.fer_csv import RequiredColumns
from fer_pipeline.data.image_decoding import CropReader, DecodingOptions
from fer_pipeline.data.label_resolver import LabelResolver
from fer_pipeline.spark.input_files import open_input_files
from fer_pipeline.spark.local_mode import build_spark_environment
from fer_pipeline.spark.read_records import Batches, SourceReader
from fer_pipeline.spark.record_columns import RecordOptions, build_record_tables
from fer_pipeline.spark.score_images import create_file_source
from fer_pipeline.spark.session import spark_session

_IMAGE_SIZE = 48  # height and width, in pixels

CountImages = Callable[[Batches], Iterator[int]]
"""A function that reads the images of a task, and yields the number of images of each batch."""


def main(job: str, folder: str) -> None:
    """Read the images of a folder as a job does, and print their number."""
    os.environ.update(build_spark_environment(os.environ))
    with spark_session("benchmark") as spark:
        files = open_input_files(spark, [folder], "images")
        required = RequiredColumns(emotion=False, usage=False)
        reader = files.create_reader(required, CropReader(DecodingOptions()))
        count_images = _COUNTERS[job](reader)

        def count_in_task(batches: Batches) -> Batches:
            """Yield the number of images of a task."""
            yield pa.RecordBatch.from_pydict({"images": [sum(count_images(batches))]})

        rows = reader.batches.mapInArrow(count_in_task, "images bigint").collect()
        print(sum(row.images for row in rows))


def _count_preprocessed_images(reader: SourceReader) -> CountImages:
    """Return a function that reads images as `preprocess` does before its shuffle."""
    encoder = LabelEncoder({}, FER2013)
    options = RecordOptions(LabelResolver(encoder, None), _IMAGE_SIZE, seed=0)
    read = reader.read
    return lambda batches: (
        len(table.images) for table in build_record_tables(read(batches), options)
    )


def _count_scored_images(reader: SourceReader) -> CountImages:
    """Return a function that reads images as `score` does before the model predicts."""
    read = create_file_source(reader, BlockOffsets(), _IMAGE_SIZE, Enhancement()).read
    return lambda batches: (len(images.pixels) for images in read(batches))


_COUNTERS = {"preprocess": _count_preprocessed_images, "score": _count_scored_images}

if __name__ == "__main__":
    main(*sys.argv[1:])
