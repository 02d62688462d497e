"""The yardstick for the feed where none is shared: Parquet pixels to float32 batches, no framework.

python yardstick_feed.py 'DATASET/split=train/*.parquet': reads row group after row group with
pyarrow and yields (x - 128) / 128 in batches of 128, unshuffled; prints images a second as JSON.
"""

import glob
import json
import sys
import time

import numpy as np
import pyarrow.parquet as pq

_AREA, _BATCH = 48 * 48, 128


def main() -> None:
    """Runs it."""
    began, images = time.perf_counter(), 0
    for path in sorted(glob.glob(sys.argv[1])):  # noqa: PTH207 - the pattern is a whole path
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            for chunk in file.read_row_group(group, columns=["image"])["image"].chunks:
                pixels = np.frombuffer(chunk.buffers()[-1], np.uint8)[chunk.offset * _AREA :]
                pixels = pixels[: len(chunk) * _AREA].reshape(-1, 48, 48, 1)
                for start in range(0, len(pixels), _BATCH):
                    batch = (pixels[start : start + _BATCH].astype(np.float32) - 128) / 128
                    images += len(batch)
    seconds = time.perf_counter() - began
    print(json.dumps({"images": images, "images_per_second": round(images / seconds)}))


if __name__ == "__main__":
    main()
