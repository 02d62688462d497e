"""A Spark standalone cluster on this machine: a master and workers, processes of their own."""

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
_LIMIT = 60.0


class Cluster:
    """A master, and workers with one core each.

    Attributes:
        folder: Where it writes its logs and the workers' scratch.
        url: Of the master.
        options: What a job is submitted with.
    """

    def __init__(self, folder: Path, workers: int = 2, memory: str = "2g") -> None:
        """Starts it.

        Args:
            folder: Where it writes its logs and the workers' scratch.
            workers: How many.
            memory: Of each worker, for executors.
        """
        self.folder, self._processes = folder, list[subprocess.Popen]()
        (folder / "conf").mkdir(parents=True)
        # As if each machine had one GPU; who asks for none is given none.
        discovery = folder / "gpus.sh"
        discovery.write_text('#!/bin/sh\necho \'{"name": "gpu", "addresses": ["5"]}\'\n')
        discovery.chmod(0o755)
        (folder / "conf" / "spark-defaults.conf").write_text(
            f"spark.worker.resource.gpu.amount 1\n"
            f"spark.worker.resource.gpu.discoveryScript {discovery}\n"
        )
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SPARK_", "PYSPARK_"))},
            "JAVA_HOME": str(find_java_home()),
            "SPARK_HOME": str(_SPARK),
            # Its own log says where the master listens.
            "SPARK_CONF_DIR": str(folder / "conf"),
            "SPARK_LOCAL_IP": "127.0.0.1",
        }
        ports = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
        log = self._start("master", [f"{_DEPLOY}.master.Master", *ports])
        self.url = self._said(log, r"Starting Spark master at (spark://\S+)")
        self.options = ("--master", self.url, "--conf", "spark.driver.host=127.0.0.1")
        self._worker = [f"{_DEPLOY}.worker.Worker", *ports, "--cores", "1", "--memory", memory]
        for number in range(workers):
            self.add_worker(number)

    def add_worker(self, number: int) -> None:
        """Starts one more worker."""
        scratch = self.folder / f"worker-{number}"
        command = [*self._worker, "--work-dir", str(scratch), self.url]
        log = self._start(f"worker-{number}", command)
        self._said(log, "Successfully registered with master")

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

    def _said(self, log: Path, pattern: str) -> str:
        end = time.monotonic() + _LIMIT
        while time.monotonic() < end:
            found = re.search(pattern, log.read_text(errors="replace"))
            if found:
                return found[found.re.groups]
            time.sleep(0.1)
        self.stop()
        raise AssertionError(log.read_text(errors="replace"))

    @property
    def ids(self) -> list[int]:
        """The ids of the master and the workers, which start all others."""
        return [process.pid for process in self._processes]

    def executors(self) -> list[int]:
        """The ids of its executors' JVMs."""
        return [pid for pid, line in self.programs() if "CoarseGrainedExecutorBackend" in line]

    def python_workers(self) -> list[int]:
        """The ids of the Python processes that have a task: those that a daemon has forked."""
        daemons = {pid: line for pid, line in self.programs() if "pyspark.daemon" in line}
        return [pid for pid in daemons if _parent(pid) in daemons]

    def programs(self) -> Iterator[tuple[int, str]]:
        """All processes that it has started, with their command lines."""
        sessions = {*self.ids}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                if _started_by(pid) & sessions:
                    yield pid, (entry / "cmdline").read_text().replace("\0", " ")

    def stop(self) -> None:
        """Ends all of it."""
        programs = [pid for pid, _ in self.programs()]
        for pid in [*programs, *self.ids]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _started_by(pid: int) -> set[int]:
    """A process and all that it descends from."""
    found = {pid}
    while (pid := _parent(pid)) > 1:
        found.add(pid)
    return found
