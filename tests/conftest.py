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
