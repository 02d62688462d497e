"""What processes that have to run at the same time find out of each other."""

import os

import pytest

from fer_pipeline.errors import ClusterError, WorkerLostError
from fer_pipeline.spark import barrier


@pytest.fixture
def starts(tmp_path):
    """Where a process notes that it has begun."""
    return tmp_path / "starts"


def dying(starts, times):
    """What a process does that ends itself so many times, and then no more."""

    def function(member):
        with starts.open("a") as file:
            file.write("x")
        if starts.stat().st_size <= times:
            os._exit(1)

    return function


def test_who_is_lost_four_times_in_a_row_is_given_up(spark, starts):
    with pytest.raises(WorkerLostError, match="workers were lost 4 times without a round"):
        barrier.run(spark, 1, dying(starts, 100))
    assert starts.read_text() == "x" * 4


def test_who_gets_on_in_between_may_be_lost_more_often(spark, starts):
    def progress():
        return starts.stat().st_size // 3 if starts.exists() else 0

    barrier.run(spark, 1, dying(starts, 6), progress)
    assert starts.read_text() == "x" * 7


def test_a_mistake_is_not_tried_again(spark, starts):
    def function(member):
        with starts.open("a") as file:
            file.write("x")
        raise ClusterError("as it is, it cannot run")

    with pytest.raises(Exception, match="as it is, it cannot run"):
        barrier.run(spark, 1, function)
    assert starts.read_text() == "x"


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
