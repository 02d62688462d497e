"""Fixtures, options and markers of all tests."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more of the machine's other work than of the code.
settings.register_profile("fer_pipeline", deadline=None)
settings.load_profile("fer_pipeline")

pytest_plugins = (
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
"""Markers say what a test costs. Fixtures and folders set them, so no test can lack its own."""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT is Python's to handle, which it is not where the tests run in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `make cluster-test` sets."""
    parser.addoption("--cluster", action="store_true", help="all tests on a cluster, not a few")
    parser.addoption("--fer2013", metavar="CSV", help="some rows of it, not drawn faces")
    parser.addoption("--kills", type=int, default=5, help="how often a driver is killed")


def pytest_configure(config: pytest.Config) -> None:
    """Whatever test is killed for, it says so."""
    config.addinivalue_line("markers", "killed(what): what is killed, and must hold all the same")
    config.addinivalue_line("markers", "cluster: takes minutes: make cluster-test alone runs it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the tests on a cluster, `make test` has a short form."""
    if not config.getoption("--cluster"):
        left_out = [item for item in items if item.get_closest_marker("cluster")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in _MARKER_OF_FOLDER:
            item.add_marker(_MARKER_OF_FOLDER[folder])
        for fixture, marker in _MARKER_OF_FIXTURE.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
        # It travels with the report, from whichever process runs the test.
        item.user_properties += [("killed", mark.args[0]) for mark in item.iter_markers("killed")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each thing that was killed."""
    held: dict[str, set[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            # What could not be collected has none.
            for key, what in getattr(report, "user_properties", ()):
                if key == "killed":
                    held.setdefault(what, set()).add(outcome)
    if held:
        terminalreporter.section("killed")
    for what, outcomes in held.items():
        said = "DID NOT HOLD" if outcomes & {"failed", "error"} else "held"
        said = "not run" if outcomes == {"skipped"} else said
        terminalreporter.write_line(f"{said:>12}  {what}")
