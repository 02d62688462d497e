"""What holds for all tests."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# How long an example takes says more of the machine's other work than of the code.
settings.register_profile("fer_pipeline", deadline=None)
settings.load_profile("fer_pipeline")


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


_held: dict[str, list[str]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Notes what held."""
    report = yield
    marker = item.get_closest_marker("killed")
    if marker and (report.when == "call" or not report.passed):
        _held.setdefault(marker.args[0], []).append(report.outcome)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each thing that was killed."""
    if _held:
        terminalreporter.section("killed")
        for what, results in _held.items():
            held = "DID NOT HOLD" if "failed" in results else "held"
            held = "not run" if {*results} == {"skipped"} else held
            terminalreporter.write_line(f"{held:>12}  {what}")
