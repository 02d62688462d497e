"""A baseline for the batch loader: Parquet pixels to float32 batches, without a framework.

python baseline_feed.py 'DATASET/split=train/*.parquet': reads row group after row group with
pyarrow, computes (x - 128) / 128 in batches of 128, unshuffled, and prints images a second as JSON.
"""

import glob
import json
import sys
import time

import numpy as np
import pyarrow.parquet as pq

_SIDE = 48  # pixels
_BATCH_SIZE = 128


def main() -> None:
    """Read all images, and print the rate."""
    start, images = time.perf_counter(), 0
    for path in sorted(glob.glob(sys.argv[1])):  # noqa: PTH207 - the pattern is an absolute path
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            for chunk in file.read_row_group(group, columns=["image"])["image"].chunks:
                first = chunk.offset * _SIDE**2
                last = first + len(chunk) * _SIDE**2
                pixels = np.frombuffer(chunk.buffers()[-1], np.uint8)[first:last]
                pixels = pixels.reshape(-1, _SIDE, _SIDE, 1)
                for row in range(0, len(pixels), _BATCH_SIZE):
                    batch = (pixels[row : row + _BATCH_SIZE].astype(np.float32) - 128) / 128
                    images += len(batch)
    seconds = time.perf_counter() - start
    print(json.dumps({"images": images, "images_per_second": round(images / seconds)}))


if __name__ == "__main__":
    main()
