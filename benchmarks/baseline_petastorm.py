"""Throughput of petastorm with the input pipeline of its documentation, which handles single rows.

python -m benchmarks.baseline_petastorm FILE.parquet...: reads the files into TensorFlow, with one
row as one element, shuffled and normalised, in batches of 128, and prints the images per second.
"""

import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_BATCH_SIZE = 128
_BATCH_COUNT = 256


def measure_reading(paths: Sequence[Path]) -> float:
    """Read images with petastorm and return the images per second.

    Args:
        paths: Parquet files of one split of a dataset.
    """
    import tensorflow as tf

    from fer_pipeline.learning.input.petastorm_compat import make_batch_reader

    def read_row_groups() -> Iterator[tuple[list[bytes], list[int]]]:
        for row_group in reader:
            yield list(row_group.image), list(row_group.label)

    def normalize(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return (tf.cast(tf.io.decode_raw(image, tf.uint8), tf.float32) - 128) / 128, label

    # Not as_uri: petastorm does not decode the %3D of split=train.
    urls = [f"file://{path.absolute()}" for path in paths]
    with make_batch_reader(urls, schema_fields=["^image$", "^label$"], num_epochs=1) as reader:
        signature = (tf.TensorSpec((None,), tf.string), tf.TensorSpec((None,), tf.int32))
        rows = tf.data.Dataset.from_generator(read_row_groups, output_signature=signature).unbatch()
        batches = rows.shuffle(1024, seed=0).map(normalize).batch(_BATCH_SIZE).prefetch(4)
        start, image_count = time.perf_counter(), 0
        for _, labels in itertools.islice(batches, _BATCH_COUNT):
            image_count += int(labels.shape[0])
        return image_count / (time.perf_counter() - start)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    print(measure_reading([Path(argument) for argument in sys.argv[1:]]))
