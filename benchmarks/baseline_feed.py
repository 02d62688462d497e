"""Baseline for the batch loader: reads Parquet files as float32 batches, without a framework.

python baseline_feed.py 'DATASET/split=train/*.parquet': reads row group after row group with
pyarrow, computes (x - 128) / 128 in batches of 128 without shuffling, and prints the images per
second as JSON.
"""

import glob
import json
import sys
import time

import numpy as np
import pyarrow.parquet as pq

_IMAGE_SIZE = 48  # height and width, in pixels
_BATCH_SIZE = 128


def main() -> None:
    """Read all images, and print the images per second."""
    start, image_count = time.perf_counter(), 0
    for path in sorted(glob.glob(sys.argv[1])):  # noqa: PTH207 - the pattern is an absolute path
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            for chunk in file.read_row_group(group, columns=["image"])["image"].chunks:
                first = chunk.offset * _IMAGE_SIZE**2
                last = first + len(chunk) * _IMAGE_SIZE**2
                pixels = np.frombuffer(chunk.buffers()[-1], np.uint8)[first:last]
                pixels = pixels.reshape(-1, _IMAGE_SIZE, _IMAGE_SIZE, 1)
                for row in range(0, len(pixels), _BATCH_SIZE):
                    batch = (pixels[row : row + _BATCH_SIZE].astype(np.float32) - 128) / 128
                    image_count += len(batch)
    seconds = time.perf_counter() - start
    rate = round(image_count / seconds)
    print(json.dumps({"images": image_count, "images_per_second": rate}))


if __name__ == "__main__":
    main()
