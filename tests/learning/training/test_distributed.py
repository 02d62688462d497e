"""Data-parallel training in real processes, which sum their gradients over sockets."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fer_pipeline.learning.training import distributed
from tests.learning.training import one_worker

WORKER = Path(one_worker.__file__)
STEPS = 50
BATCH = 24
SIZE = 16


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """A file with fixed batches that are easy to learn: the brightness depends on the class."""
    random = np.random.default_rng(0)
    labels = random.integers(3, size=(STEPS, BATCH)).astype(np.int32)
    images = random.normal(0, 0.5, (STEPS, BATCH, SIZE, SIZE, 1))
    images += (labels[..., None, None, None] - 1) * 0.3
    path = tmp_path_factory.mktemp("batches") / "batches.npz"
    np.savez(path, images=images.astype(np.float32), labels=labels)
    return path


def find_free_addresses(count: int) -> list[str]:
    """Return addresses of this machine with different ports that nobody uses."""
    sockets = [socket.socket() for _ in range(count)]
    for listener in sockets:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return [f"127.0.0.1:{port}" for port in ports]


def start_process(command: Sequence[str], **streams: Any) -> subprocess.Popen[str]:
    """Start a worker."""
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        stderr=subprocess.PIPE,
        text=True,
        **streams,
    )


def train_workers(
    count: int, batches: Path, folder: Path
) -> list[dict[str, npt.NDArray[np.float32]]]:
    """Return the losses and the final weights of each worker, by name."""
    addresses = json.dumps(find_free_addresses(count))
    folder.mkdir()
    processes = [
        start_process([str(WORKER), str(n), addresses, str(folder / f"{n}.npz"), str(batches)])
        for n in range(count)
    ]
    try:
        for process in processes:
            _, messages = process.communicate(timeout=200)
            assert process.returncode == 0, messages
    finally:
        for process in processes:
            process.kill()
    return [dict(np.load(folder / f"{n}.npz")) for n in range(count)]


def test_two_workers_train_like_one_worker(batches, tmp_path):
    """With BatchNorm, momentum, weight decay, clipping, weighted classes and an averaged model."""
    one_worker.main(0, ["no other"], str(tmp_path / "one.npz"), str(batches))
    alone = dict(np.load(tmp_path / "one.npz"))
    both = train_workers(2, batches, tmp_path / "two")
    assert alone["losses"].shape == (STEPS,)
    assert alone["losses"][-5:].mean() < 0.8 * alone["losses"][:5].mean()
    for worker in both:
        np.testing.assert_allclose(worker["losses"], alone["losses"], rtol=1e-4)
        for name in alone.keys() - {"losses"}:
            scale = max(1e-3, np.abs(alone[name]).max())
            np.testing.assert_allclose(worker[name], alone[name], rtol=0, atol=1e-4 * scale)
    # The two workers agree to the last bit: each makes the same step with the same sum.
    for name in alone.keys() - {"losses"}:
        np.testing.assert_array_equal(both[0][name], both[1][name])


# Code of a worker that sums with the others and prints its number of threads, again and again.
# Arguments: its number, its time limits in seconds, and the addresses of all workers.
SUM_FOREVER = """
import os, sys
import numpy as np
from fer_pipeline.errors import WorkerLostError
from fer_pipeline.learning.training import distributed
number, distributed._CONNECT_SECONDS, distributed._COLLECTIVE_SECONDS = map(int, sys.argv[1:4])
try:
    with distributed.translate_worker_failures(number):
        distributed.connect_to_workers(sys.argv[4:], number, 1)
        while True:
            distributed.all_reduce_sum([np.zeros(1)])
            print(len(os.listdir("/proc/self/task")), flush=True)
except WorkerLostError as error:
    sys.exit(f"error: {error}")
"""


def start_summing_worker(
    number: int, addresses: Sequence[str], *, connect_seconds: int = 120, sum_seconds: int = 600
) -> subprocess.Popen[str]:
    command = ["-c", SUM_FOREVER, *map(str, (number, connect_seconds, sum_seconds)), *addresses]
    return start_process(command, stdout=subprocess.PIPE)


def read_line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline()


class TestTimeouts:
    @pytest.mark.slow
    def test_a_worker_ends_if_another_one_never_connects(self):
        addresses = find_free_addresses(2)
        with start_summing_worker(0, addresses, connect_seconds=5) as alone:
            try:
                output, messages = alone.communicate(timeout=100)
            finally:
                alone.kill()
        assert (alone.returncode, output) == (1, "")
        assert "Timeout (0:00:05)!" in messages

    def test_a_worker_ends_if_another_one_stops(self):
        addresses = find_free_addresses(2)
        with (
            start_summing_worker(0, addresses, sum_seconds=5) as first,
            start_summing_worker(1, addresses, sum_seconds=5) as second,
        ):
            try:
                threads = [int(read_line(first)) for _ in range(500)]
                second.send_signal(signal.SIGSTOP)
                _, messages = first.communicate(timeout=100)
            finally:
                first.kill()
                second.kill()
        # TensorFlow's own timeout would keep a thread for each sum until the timeout is over.
        assert threads[-1] <= threads[50] + 10
        assert first.returncode == 1
        assert "Timeout (0:00:05)!" in messages


def test_the_sums_of_one_worker_are_its_own_arrays():
    arrays = [np.array(1.5), np.arange(6).reshape(2, 3), np.array([2**52, 1], np.int64)]
    for array, total in zip(arrays, distributed.all_reduce_sum(arrays), strict=True):
        np.testing.assert_array_equal(array, total)
        assert array.dtype == total.dtype
