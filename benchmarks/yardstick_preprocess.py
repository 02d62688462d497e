"""The yardstick for preprocessing where none is shared: the same work by hand, on one machine.

python yardstick_preprocess.py IN.csv OUT_DIR [--processes N]: each process parses a byte range of
the CSV, adds the mirror image and a rotation of each Training row and writes zstd Parquet. It
checks, splits and counts nothing.
"""

import argparse
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_SCHEMA = pa.schema([("emotion", pa.int32()), ("image", pa.binary(48 * 48))])


def convert(source: str, start: int, stop: int, target: str) -> None:
    """Converts the lines that begin between two byte positions of the CSV."""
    cv2.setNumThreads(1)
    rotation = cv2.getRotationMatrix2D((23.5, 23.5), 10, 1.0)
    labels: list[int] = []
    pixels: list[bytes] = []
    with (
        Path(source).open("rb") as lines,
        pq.ParquetWriter(target, _SCHEMA, compression="zstd") as out,
    ):
        lines.seek(start)
        lines.readline()
        while lines.tell() <= stop and (line := lines.readline()):
            emotion, text, usage = line.rstrip().split(b",")
            image = np.fromstring(text, np.uint8, sep=" ").reshape(48, 48)
            made = [image]
            if usage == b"Training":
                made += [cv2.flip(image, 1), cv2.warpAffine(image, rotation, (48, 48))]
            labels += [int(emotion)] * len(made)
            pixels += [one.tobytes() for one in made]
            if len(labels) >= 4096:
                out.write_table(pa.table({"emotion": labels, "image": pixels}, schema=_SCHEMA))
                labels, pixels = [], []
        out.write_table(pa.table({"emotion": labels, "image": pixels}, schema=_SCHEMA))


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    length, count = chosen.source.stat().st_size, chosen.processes
    work = [
        (
            str(chosen.source),
            length * part // count,
            length * (part + 1) // count,
            str(chosen.out / f"part-{part}.parquet"),
        )
        for part in range(count)
    ]
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        pool.starmap(convert, work)


if __name__ == "__main__":
    main()
