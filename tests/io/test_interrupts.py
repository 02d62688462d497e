import contextlib
import signal
import threading

import pytest

from fer_pipeline.io import interrupts


def send_interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


pytestmark = pytest.mark.usefixtures("interruptible")


def test_an_interrupt_is_raised_at_once():
    with pytest.raises(KeyboardInterrupt), interrupts.record_interrupts():
        send_interrupt()


def test_an_interrupt_that_was_swallowed_is_raised_again():
    with interrupts.record_interrupts():
        interrupts.raise_if_interrupted()
        with contextlib.suppress(KeyboardInterrupt):
            send_interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupts.raise_if_interrupted()


def test_an_interrupt_is_forgotten_after_the_block():
    with contextlib.suppress(KeyboardInterrupt), interrupts.record_interrupts():
        send_interrupt()
    interrupts.raise_if_interrupted()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.record_interrupts():
        send_interrupt()
        interrupts.raise_if_interrupted()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_does_not_change_the_handler():
    handlers = []

    def read_handler() -> None:
        with interrupts.record_interrupts():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=read_handler)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
