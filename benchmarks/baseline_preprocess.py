"""Baseline for preprocessing: the same work without Spark.

python baseline_preprocess.py IN.csv OUT_DIR [--processes N]: each process parses a byte range of
the CSV file, adds the mirror image and a rotation of each Training row, and writes a Parquet file
with zstd compression. Unlike the job, it does not check, split or count the rows.
"""

import argparse
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_IMAGE_SIZE = 48  # height and width, in pixels
_ROTATION_DEGREES = 10
_ROWS_PER_GROUP = 4096
_SCHEMA = pa.schema([("emotion", pa.int32()), ("image", pa.binary(_IMAGE_SIZE * _IMAGE_SIZE))])


def convert_lines(source: str, start: int, stop: int, target: str) -> None:
    """Convert the lines that begin between two byte positions of the CSV file.

    Args:
        source: CSV file to read.
        start: First byte position.
        stop: Last byte position.
        target: Parquet file to write.
    """
    cv2.setNumThreads(1)
    rotation = cv2.getRotationMatrix2D(((_IMAGE_SIZE - 1) / 2,) * 2, _ROTATION_DEGREES, 1.0)
    labels: list[int] = []
    pixels: list[bytes] = []
    with (
        Path(source).open("rb") as lines,
        pq.ParquetWriter(target, _SCHEMA, compression="zstd") as writer,
    ):
        lines.seek(start)
        lines.readline()
        while lines.tell() <= stop and (line := lines.readline()):
            emotion, text, usage = line.rstrip().split(b",")
            image = np.fromstring(text, np.uint8, sep=" ").reshape(_IMAGE_SIZE, _IMAGE_SIZE)
            variants = [image]
            if usage == b"Training":
                variants += [
                    cv2.flip(image, 1),
                    cv2.warpAffine(image, rotation, (_IMAGE_SIZE, _IMAGE_SIZE)),
                ]
            labels += [int(emotion)] * len(variants)
            pixels += [variant.tobytes() for variant in variants]
            if len(labels) >= _ROWS_PER_GROUP:
                writer.write_table(pa.table({"emotion": labels, "image": pixels}, schema=_SCHEMA))
                labels, pixels = [], []
        writer.write_table(pa.table({"emotion": labels, "image": pixels}, schema=_SCHEMA))


def main() -> None:
    """Convert a CSV file with several processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    byte_count, process_count = arguments.source.stat().st_size, arguments.processes
    tasks = [
        (
            str(arguments.source),
            byte_count * part // process_count,
            byte_count * (part + 1) // process_count,
            str(arguments.out / f"part-{part}.parquet"),
        )
        for part in range(process_count)
    ]
    with multiprocessing.get_context("spawn").Pool(process_count) as pool:
        pool.starmap(convert_lines, tasks)


if __name__ == "__main__":
    main()
