"""Petastorm's own format and reader, for comparison with the batch loader.

python petastorm_store.py IMAGES.npz STORE: writes the images as a petastorm dataset.
python petastorm_store.py STORE: reads the dataset into TensorFlow with `make_reader`, shuffled and
normalised, in batches of 128, and prints the images per second.
"""

import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np

warnings.simplefilter("ignore")

_IMAGE_SHAPE = (48, 48)
_BATCH_SIZE = 128
_FILE_COUNT = 4


def write_store(images: Path, store: Path) -> None:
    """Write images as a petastorm dataset.

    Args:
        images: NumPy `.npz` file with the arrays `pixels` and `labels`.
        store: Folder of the dataset to write.
    """
    from petastorm.codecs import NdarrayCodec, ScalarCodec
    from petastorm.etl.dataset_metadata import materialize_dataset
    from petastorm.unischema import Unischema, UnischemaField, dict_to_spark_row
    from pyspark.sql.types import IntegerType

    from fer_pipeline.spark.session import spark_session

    columns = Unischema(
        "Faces",
        [
            UnischemaField("image", np.uint8, _IMAGE_SHAPE, NdarrayCodec(), False),
            UnischemaField("label", np.int32, (), ScalarCodec(IntegerType()), False),
        ],
    )
    arrays = np.load(images)
    rows = [
        dict_to_spark_row(columns, {"image": image, "label": label})
        for image, label in zip(arrays["pixels"], arrays["labels"], strict=True)
    ]
    url = store.absolute().as_uri()
    with spark_session("benchmark") as spark, materialize_dataset(spark, url, columns, 4):
        frame = spark.createDataFrame(rows, columns.as_spark_schema())
        frame.coalesce(_FILE_COUNT).write.parquet(url)


def measure_reading(store: Path) -> float:
    """Read a petastorm dataset and return the images per second.

    Args:
        store: Folder of the dataset.
    """
    import tensorflow as tf
    from petastorm import make_reader
    from petastorm.tf_utils import make_petastorm_dataset

    with make_reader(store.absolute().as_uri(), num_epochs=1, seed=0, workers_count=4) as reader:
        faces = make_petastorm_dataset(reader).shuffle(1024, seed=0)
        faces = faces.map(lambda row: ((tf.cast(row.image, tf.float32) - 128) / 128, row.label))
        start, image_count = time.perf_counter(), 0
        for _, labels in faces.batch(_BATCH_SIZE).prefetch(4):
            image_count += int(labels.shape[0])
        return image_count / (time.perf_counter() - start)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    paths = [Path(argument) for argument in sys.argv[1:]]
    if len(paths) == 2:
        write_store(*paths)
    else:
        print(measure_reading(*paths))
