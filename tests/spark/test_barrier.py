"""What processes that have to run at the same time find out of each other."""

import pytest

from fer_pipeline.errors import ClusterError
from fer_pipeline.spark import barrier


def test_a_worker_that_cannot_be_reached_is_named():
    with barrier._claimed_port() as there, barrier._claimed_port() as silent:
        addresses = [f"127.0.0.1:{there}", f"127.0.0.1:{silent}"]
        with barrier._listening(there):
            said = barrier._unreachable(0, addresses)
            assert said.startswith(
                f"worker 0 ({addresses[0]}) cannot reach worker 1 ({addresses[1]}): "
            )
            with barrier._listening(silent):
                assert barrier._unreachable(0, addresses) == ""


def test_what_spark_says_of_a_stage_that_cannot_run():
    with pytest.raises(ClusterError, match="3 workers have to run at the same time"):
        barrier._lost("... requires more slots than the total number of slots ...", 3)
    with pytest.raises(ClusterError, match=r"spark\.dynamicAllocation\.enabled=false"):
        barrier._lost("... does not support dynamic resource allocation ...", 3)
    assert barrier._lost("ValueError: a mistake", 3) is None
    assert barrier._lost("x ExecutorLostFailure (executor 1 exited)\n y", 3) == (
        "ExecutorLostFailure (executor 1 exited)"
    )
