"""Barrier stages whose processes are lost, fail, or do not reach each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fer_pipeline.errors import ClusterError, WorkerLostError
from fer_pipeline.spark import barrier


@pytest.fixture
def starts(tmp_path):
    """A file that gets one byte from each process that starts."""
    return tmp_path / "starts"


def exit_on_first_calls(starts: Path, times: int) -> Callable[[barrier.BarrierTask], None]:
    """Return a function that ends its process in the first calls, and succeeds afterwards."""

    def exit_or_succeed(task: barrier.BarrierTask) -> None:
        with starts.open("a") as file:
            file.write("x")
        if starts.stat().st_size <= times:
            os._exit(1)

    return exit_or_succeed


def test_four_losses_in_a_row_are_an_error(spark, starts):
    with pytest.raises(WorkerLostError, match=r"lost 4 times.* no validation"):
        barrier.run_barrier_stage(spark, 1, exit_on_first_calls(starts, 100))
    assert starts.read_text() == "x" * 4


def test_progress_between_losses_allows_more_losses(spark, starts):
    def count_progress() -> int:
        return starts.stat().st_size // 3 if starts.exists() else 0

    barrier.run_barrier_stage(spark, 1, exit_on_first_calls(starts, 6), count_progress)
    assert starts.read_text() == "x" * 7


def test_an_error_of_the_function_is_not_retried(spark, starts):
    def fail(task: barrier.BarrierTask) -> None:
        with starts.open("a") as file:
            file.write("x")
        raise ClusterError("as it is, it cannot run")

    with pytest.raises(Exception, match="as it is, it cannot run"):
        barrier.run_barrier_stage(spark, 1, fail)
    assert starts.read_text() == "x"


def test_an_unreachable_worker_is_named():
    with barrier._reserve_port() as open_port, barrier._reserve_port() as silent_port:
        addresses = [f"127.0.0.1:{open_port}", f"127.0.0.1:{silent_port}"]
        with barrier._listen(open_port):
            problem = barrier._find_connection_failure(0, addresses)
            assert problem.startswith(
                f"worker 0 ({addresses[0]}) cannot reach worker 1 ({addresses[1]}): "
            )
            with barrier._listen(silent_port):
                assert barrier._find_connection_failure(0, addresses) == ""


def test_lost_workers_are_distinguished_from_other_failures():
    with pytest.raises(ClusterError, match="3 workers have to run at the same time"):
        barrier._parse_worker_failure(
            "... requires more slots than the total number of slots ...", 3
        )
    with pytest.raises(ClusterError, match=r"spark\.dynamicAllocation\.enabled=false"):
        barrier._parse_worker_failure("... does not support dynamic resource allocation ...", 3)
    assert barrier._parse_worker_failure("ValueError: a mistake", 3) is None
    assert barrier._parse_worker_failure("x ExecutorLostFailure (executor 1 exited)\n y", 3) == (
        "ExecutorLostFailure (executor 1 exited)"
    )
