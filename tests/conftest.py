"""Fixtures, options and markers of all tests."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Before a test module imports TensorFlow: it sets the environment of TensorFlow as the jobs do.
# Without it, a processor without AVX512-VNNI computes other last bits here than in a job.
import fer_pipeline.learning  # noqa: F401

# No deadline: the time of an example depends on the load of the machine.
settings.register_profile("fer_pipeline", deadline=None)
settings.load_profile("fer_pipeline")

pytest_plugins = (
    "tests.fixtures.figures",
    "tests.fixtures.jobs",
    "tests.fixtures.spark",
    "tests.fixtures.stored_datasets",
)

_MARKER_OF_FIXTURE = {
    "spark": "spark",
    "jobs": "processes",
}
_MARKER_OF_FOLDER = {
    "e2e": "processes",
    "learning": "tensorflow",
    "pipelines": "tensorflow",
}
"""Markers of costly tests, set by the fixtures that a test uses and by its folder."""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's handler of SIGINT, which a shell disables in its background jobs."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `make test-all`, `make cluster-test` and `make fuzz`."""
    parser.addoption("--slow", action="store_true", help="run the slow tests as well")
    parser.addoption("--cluster", action="store_true", help="run the tests on a cluster as well")
    parser.addoption(
        "--fer2013", metavar="CSV", help="use rows of this file instead of synthetic faces"
    )
    parser.addoption("--fuzz", type=int, default=300, help="number of damaged files of each kind")
    parser.addoption("--kills", type=int, default=5, help="number of times that a driver is killed")


class FolderScheduling(LoadScopeScheduling):
    """Gives each process of pytest whole files, and all files that share costly fixtures.

    Two processes with tests of Spark would both have to start it.
    """

    def _split_scope(self, nodeid: str) -> str:
        """Return the name of the group of a test."""
        file = Path(nodeid.partition("::")[0])
        if file.parent.name in ("spark", "spark_jobs"):
            return "spark"
        return "e2e" if file.parent.name == "e2e" else str(file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FolderScheduling | None:
    """Return the scheduler for --dist loadfile; for other values, xdist has one."""
    return FolderScheduling(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of the tests that kill processes."""
    config.addinivalue_line(
        "markers", "killed(victim): the job must survive the kill of the victim"
    )
    config.addinivalue_line("markers", "cluster: takes minutes; only make cluster-test runs it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that take minutes, and set the markers of costly tests."""
    for marker in ("cluster", "slow"):
        if not config.getoption(f"--{marker}"):
            deselected = [test for test in items if test.get_closest_marker(marker)]
            config.hook.pytest_deselected(items=deselected)
            items[:] = [test for test in items if test not in deselected]
    for test in items:
        folder = test.path.relative_to(Path(__file__).parent).parts[0]
        if folder in _MARKER_OF_FOLDER:
            test.add_marker(_MARKER_OF_FOLDER[folder])
        for fixture, marker in _MARKER_OF_FIXTURE.items():
            if fixture in getattr(test, "fixturenames", ()):
                test.add_marker(marker)
        # User properties are part of the report, and reach the main process with pytest-xdist.
        test.user_properties += [("killed", mark.args[0]) for mark in test.iter_markers("killed")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line for each kind of process that was killed."""
    outcomes_by_victim: dict[str, set[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            # Reports of failed collections have no properties.
            for key, victim in getattr(report, "user_properties", ()):
                if key == "killed":
                    outcomes_by_victim.setdefault(victim, set()).add(outcome)
    if outcomes_by_victim:
        terminalreporter.section("killed")
    for victim, outcomes in outcomes_by_victim.items():
        verdict = "FAILED" if outcomes & {"failed", "error"} else "survived"
        verdict = "not run" if outcomes == {"skipped"} else verdict
        terminalreporter.write_line(f"{verdict:>12}  {victim}")
