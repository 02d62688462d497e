"""A baseline for preprocessing: the same work written by hand, on one machine.

python baseline_preprocess.py IN.csv OUT_DIR [--processes N]: each process parses a byte range of
the CSV, adds the mirror image and a rotation of each Training row, and writes zstd Parquet. It does
not check, split or count anything.
"""

import argparse
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_SIDE = 48  # pixels
_ROTATION_DEGREES = 10
_ROWS_PER_GROUP = 4096
_SCHEMA = pa.schema([("emotion", pa.int32()), ("image", pa.binary(_SIDE * _SIDE))])


def convert(source: str, start: int, stop: int, target: str) -> None:
    """Convert the lines that begin between two byte positions of the CSV.

    Args:
        source: The CSV.
        start: First position, in bytes.
        stop: Last position, in bytes.
        target: The Parquet file.
    """
    cv2.setNumThreads(1)
    rotation = cv2.getRotationMatrix2D(((_SIDE - 1) / 2,) * 2, _ROTATION_DEGREES, 1.0)
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
            image = np.fromstring(text, np.uint8, sep=" ").reshape(_SIDE, _SIDE)
            variants = [image]
            if usage == b"Training":
                variants += [cv2.flip(image, 1), cv2.warpAffine(image, rotation, (_SIDE, _SIDE))]
            labels += [int(emotion)] * len(variants)
            pixels += [variant.tobytes() for variant in variants]
            if len(labels) >= _ROWS_PER_GROUP:
                writer.write_table(pa.table({"emotion": labels, "image": pixels}, schema=_SCHEMA))
                labels, pixels = [], []
        writer.write_table(pa.table({"emotion": labels, "image": pixels}, schema=_SCHEMA))


def main() -> None:
    """Convert the whole CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    size, count = arguments.source.stat().st_size, arguments.processes
    tasks = [
        (
            str(arguments.source),
            size * part // count,
            size * (part + 1) // count,
            str(arguments.out / f"part-{part}.parquet"),
        )
        for part in range(count)
    ]
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        pool.starmap(convert, tasks)


if __name__ == "__main__":
    main()
