import contextlib
import signal
import threading

import pytest

from fer_pipeline.io import interrupts


def interrupt():
    signal.raise_signal(signal.SIGINT)


pytestmark = pytest.mark.usefixtures("interruptible")


def test_is_raised_at_once():
    with pytest.raises(KeyboardInterrupt), interrupts.record_interrupts():
        interrupt()


def test_is_raised_again_where_it_was_swallowed():
    with interrupts.record_interrupts():
        interrupts.raise_if_interrupted()
        with contextlib.suppress(KeyboardInterrupt):
            interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupts.raise_if_interrupted()


def test_is_forgotten_at_the_end():
    with contextlib.suppress(KeyboardInterrupt), interrupts.record_interrupts():
        interrupt()
    interrupts.raise_if_interrupted()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.record_interrupts():
        interrupt()
        interrupts.raise_if_interrupted()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_leaves_the_signal_alone():
    found = []

    def look():
        with interrupts.record_interrupts():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
