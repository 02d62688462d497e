"""Several workers make what one makes: real processes, which sum their gradients over sockets."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fer_pipeline.learning.training import distributed

WORKER = Path(__file__).with_name("one_worker.py")
STEPS, BATCH, SIZE = 50, 24, 16


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """Fixed batches that can be learnt: a class has a brightness of its own."""
    random = np.random.default_rng(0)
    labels = random.integers(3, size=(STEPS, BATCH)).astype(np.int32)
    images = random.normal(0, 0.5, (STEPS, BATCH, SIZE, SIZE, 1))
    images += (labels[..., None, None, None] - 1) * 0.3
    path = tmp_path_factory.mktemp("batches") / "batches.npz"
    np.savez(path, images=images.astype(np.float32), labels=labels)
    return path


def find_free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start_process(command, **streams):
    """A worker, as a process."""
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        stderr=subprocess.PIPE,
        text=True,
        **streams,
    )


def train_workers(count, batches, folder):
    """What each of so many workers ends with."""
    addresses = json.dumps([f"127.0.0.1:{port}" for port in find_free_ports(count)])
    folder.mkdir()
    processes = [
        start_process([str(WORKER), str(n), addresses, str(folder / f"{n}.npz"), str(batches)])
        for n in range(count)
    ]
    try:
        for process in processes:
            _, said = process.communicate(timeout=200)
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()
    return [dict(np.load(folder / f"{n}.npz")) for n in range(count)]


def test_two_workers_make_the_steps_of_one(batches, tmp_path):
    """With BatchNorm, momentum, weight decay, clipping, weighted classes and an averaged model."""
    (alone,) = train_workers(1, batches, tmp_path / "one")
    both = train_workers(2, batches, tmp_path / "two")
    assert alone["losses"].shape == (STEPS,)
    assert alone["losses"][-5:].mean() < 0.8 * alone["losses"][:5].mean()
    for worker in both:
        np.testing.assert_allclose(worker["losses"], alone["losses"], rtol=1e-4)
        for name in alone.keys() - {"losses"}:
            scale = max(1e-3, np.abs(alone[name]).max())
            np.testing.assert_allclose(worker[name], alone[name], rtol=0, atol=1e-4 * scale)
    # Those of the two are the same to the last bit: each makes the same step with the same sum.
    for name in alone.keys() - {"losses"}:
        np.testing.assert_array_equal(both[0][name], both[1][name])


# A worker that sums with the others, and says how many threads it has, without an end. Its limits,
# in seconds, are given.
PATIENT = """
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


def start_summing_worker(number, addresses, *, meets=120, waits=600):
    command = ["-c", PATIENT, *map(str, (number, meets, waits)), *addresses]
    return start_process(command, stdout=subprocess.PIPE)


class TestNothingHangs:
    def test_where_a_worker_never_comes(self):
        addresses = [f"127.0.0.1:{port}" for port in find_free_ports(2)]
        with start_summing_worker(0, addresses, meets=5) as alone:
            try:
                out, said = alone.communicate(timeout=100)
            finally:
                alone.kill()
        assert (alone.returncode, out) == (1, "")
        assert "Timeout (0:00:05)!" in said

    def test_where_a_worker_stands_still(self):
        addresses = [f"127.0.0.1:{port}" for port in find_free_ports(2)]
        with (
            start_summing_worker(0, addresses, waits=5) as first,
            start_summing_worker(1, addresses, waits=5) as second,
        ):
            try:
                assert first.stdout.readline()
                assert second.stdout.readline()
                second.send_signal(signal.SIGSTOP)
                _, said = first.communicate(timeout=100)
            finally:
                first.kill()
                second.kill()
        assert first.returncode == 1
        assert "Timeout (0:00:05)!" in said


def test_waiting_costs_no_threads():
    """A limit of TensorFlow's own to each sum would keep a thread for it until it is over."""
    addresses = [f"127.0.0.1:{port}" for port in find_free_ports(2)]
    with start_summing_worker(0, addresses) as first, start_summing_worker(1, addresses) as second:
        try:
            threads = [int(first.stdout.readline()) for _ in range(500)]
        finally:
            first.kill()
            second.kill()
    assert threads[-1] <= threads[50] + 10


def test_totals_of_one_are_its_own():
    arrays = [np.array(1.5), np.arange(6).reshape(2, 3), np.array([2**52, 1], np.int64)]
    for given, found in zip(arrays, distributed.all_reduce_sum(arrays), strict=True):
        np.testing.assert_array_equal(given, found)
        assert given.dtype == found.dtype
