"""A process that runs jobs one after the other, and so imports TensorFlow and starts Spark once.

A job of its own process spends most of its time on these two. Tests that kill a job, or that look
at how it is started, still need such a process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.helpers.processes import JOB_TIMEOUT, FinishedJob, make_job_environment


class SharedProcess:
    """The side of the tests: passes the arguments of a job on, and reads what the job printed."""

    def __init__(self, connection: Connection, out: Path, err: Path) -> None:
        """Create the object for a process that listens to a connection.

        Args:
            connection: Connection to the process.
            out: File to which the stdout of the process and of its children is appended.
            err: File to which their stderr is appended.
        """
        self._connection, self._out, self._err = connection, out, err

    def run(self, *arguments: object, cwd: Path | None = None) -> FinishedJob:
        """Run the command `fer-pipeline` with these arguments to its end."""
        starts = [path.stat().st_size for path in (self._out, self._err)]
        self._connection.send(([str(argument) for argument in arguments], cwd or Path.cwd()))
        if not self._connection.poll(JOB_TIMEOUT):
            pytest.fail(f"the job does not end; stderr:\n{self._err.read_text()}")
        status = self._connection.recv()
        out, err = (
            path.read_bytes()[start:].decode()
            for path, start in zip((self._out, self._err), starts, strict=True)
        )
        return FinishedJob(status, out, err)


@contextlib.contextmanager
def run_shared_process(folder: Path, **environment: str) -> Iterator[SharedProcess]:
    """Start the process, and end it after the `with` block.

    Args:
        folder: Folder for the files that receive the two streams.
        environment: Environment variables to add to those of a job.
    """
    out, err = folder / "out.txt", folder / "err.txt"
    out.touch()
    err.touch()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    variables = {**make_job_environment(), **environment}
    process = context.Process(target=_serve, args=(theirs, out, err, variables))
    process.start()
    theirs.close()
    try:
        yield SharedProcess(ours, out, err)
    finally:
        ours.close()
        process.join(30)
        process.kill()


def _serve(connection: Connection, out: Path, err: Path, environment: Mapping[str, str]) -> None:
    """Run the jobs that arrive on a connection, until its other end is closed."""
    os.environ.clear()
    os.environ.update(environment)
    # Spark's JVM inherits the two streams.
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream.fileno())
    with contextlib.suppress(EOFError):
        while True:
            arguments, cwd = connection.recv()
            os.chdir(cwd)
            connection.send(_run_job(arguments))


def _run_job(arguments: list[str]) -> int:
    """Run a job as Python runs a program: return the exit status, and print other exceptions."""
    from fer_pipeline import console

    try:
        status = console.main(arguments)
    except SystemExit as error:
        status = int(error.code or 0)
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status
