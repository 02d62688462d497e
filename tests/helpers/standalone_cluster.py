"""A Spark standalone cluster on this machine: a master and workers in separate processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyspark

from fer_pipeline.spark.java import find_java_home

_SPARK = Path(pyspark.__file__).parent
_DEPLOY = "org.apache.spark.deploy"
_START_TIMEOUT = 60.0  # seconds


class Cluster:
    """A master, and workers with one core each.

    Attributes:
        folder: Folder of the logs and of the workers' scratch files.
        url: URL of the master.
        options: Options of spark-submit for a job on this cluster.
    """

    def __init__(
        self, folder: Path, workers: int = 2, memory: str = "2g", java_options: str = ""
    ) -> None:
        """Start the cluster.

        Args:
            folder: Folder of the logs and of the workers' scratch files.
            workers: Number of workers.
            memory: Memory of each worker for its executors.
            java_options: Options of all Java processes.
        """
        self.folder = folder
        self._processes: list[subprocess.Popen] = []
        (folder / "conf").mkdir(parents=True)
        # Each worker claims to have one GPU. Jobs that request none get none.
        discovery_script = folder / "gpus.sh"
        discovery_script.write_text('#!/bin/sh\necho \'{"name": "gpu", "addresses": ["5"]}\'\n')
        discovery_script.chmod(0o755)
        (folder / "conf" / "spark-defaults.conf").write_text(
            f"spark.worker.resource.gpu.amount 1\n"
            f"spark.worker.resource.gpu.discoveryScript {discovery_script}\n"
        )
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SPARK_", "PYSPARK_"))},
            "JAVA_HOME": str(find_java_home()),
            "SPARK_HOME": str(_SPARK),
            # A configuration without log settings: the log then tells the address of the master.
            "SPARK_CONF_DIR": str(folder / "conf"),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_DAEMON_JAVA_OPTS": java_options,
        }
        ports = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
        log = self._start("master", [f"{_DEPLOY}.master.Master", *ports])
        self.url = self._wait_for_log(log, r"Starting Spark master at (spark://\S+)")
        address = "spark.driver.host=127.0.0.1"
        self.options: tuple[str, ...] = ("--master", self.url, "--conf", address)
        if java_options:
            executors = f"spark.executor.extraJavaOptions={java_options}"
            self.options += ("--driver-java-options", java_options, "--conf", executors)
        self._worker = [f"{_DEPLOY}.worker.Worker", *ports, "--cores", "1", "--memory", memory]
        for number in range(workers):
            self.add_worker(number)

    def add_worker(self, number: int) -> None:
        """Start one more worker."""
        scratch = self.folder / f"worker-{number}"
        command = [*self._worker, "--work-dir", str(scratch), self.url]
        log = self._start(f"worker-{number}", command)
        self._wait_for_log(log, "Successfully registered with master")

    def _start(self, name: str, command: list[str]) -> Path:
        log = self.folder / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [_SPARK / "bin" / "spark-class", *command],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return log

    def _wait_for_log(self, log: Path, pattern: str) -> str:
        """Wait for a line of the log, and return the last group of the pattern."""
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            match = re.search(pattern, log.read_text(errors="replace"))
            if match:
                return match[match.re.groups]
            time.sleep(0.1)
        self.stop()
        raise AssertionError(log.read_text(errors="replace"))

    @property
    def ids(self) -> list[int]:
        """Process ids of the master and the workers, which start all other processes."""
        return [process.pid for process in self._processes]

    def list_executors(self) -> list[int]:
        """Return the process ids of the executors' JVMs."""
        return [
            pid for pid, line in self.list_processes() if "CoarseGrainedExecutorBackend" in line
        ]

    def list_python_workers(self) -> list[int]:
        """Return the ids of the Python processes with a task, which are forks of a daemon."""
        daemons = {pid: line for pid, line in self.list_processes() if "pyspark.daemon" in line}
        return [pid for pid in daemons if _read_parent(pid) in daemons]

    def list_processes(self) -> Iterator[tuple[int, str]]:
        """Yield the id and the command line of each process that the cluster has started."""
        roots = {*self.ids}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                if _list_ancestors(pid) & roots:
                    yield pid, (entry / "cmdline").read_text().replace("\0", " ")

    def stop(self) -> None:
        """Kill all processes of the cluster."""
        pids = [pid for pid, _ in self.list_processes()]
        for pid in [*pids, *self.ids]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()


def _read_parent(pid: int) -> int:
    """Return the id of a process's parent; 0 if the process has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _list_ancestors(pid: int) -> set[int]:
    """Return the ids of a process and of all its ancestors."""
    ancestors = {pid}
    while (pid := _read_parent(pid)) > 1:
        ancestors.add(pid)
    return ancestors
