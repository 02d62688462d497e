"""The hash by which Spark distributes rows."""

from __future__ import annotations

import numpy as np
import pytest

from fer_pipeline.spark.shuffle import find_partition_keys, hash_integers


def test_integers_have_the_hash_that_spark_gives_them(spark) -> None:
    numbers = np.array([*range(1000), 2**16, 2**24 + 7, 2**31 - 1])
    frame = spark.createDataFrame([(int(number),) for number in numbers], "number int")
    hashes = [row[0] for row in frame.selectExpr("hash(number)").collect()]
    assert hash_integers(numbers).tolist() == hashes


@pytest.mark.parametrize("partition_count", [1, 2, 8, 31, 1000])
def test_every_partition_has_the_smallest_key_that_leads_to_it(partition_count) -> None:
    keys = find_partition_keys(partition_count)
    partitions = (hash_integers(np.arange(max(keys) + 1)) % partition_count).tolist()
    assert [partitions.index(partition) for partition in range(partition_count)] == keys
