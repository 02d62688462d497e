"""The child process that decodes files, and files that make it crash."""

from __future__ import annotations

import os
import signal
import time

import pytest

from fer_pipeline.data.decoder_process import Crash, DecoderProcess


def handle(file: bytes) -> int:
    """Stand for a decoder: most files have a length, some are too much for it."""
    match file:
        case b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"exit":
            os._exit(3)
        case b"hang":
            time.sleep(60)
        case b"error":
            raise ValueError("a bug")
    return len(file)


@pytest.fixture
def decoder():
    decoder = DecoderProcess(handle)
    yield decoder
    decoder.close()


def decode(decoder: DecoderProcess[bytes, int], *files: bytes) -> list[int | str]:
    """Return the result of each file, or the description of its crash."""
    answers = decoder.map(files)
    return [str(answer) if isinstance(answer, Crash) else answer for answer in answers]


def test_every_file_has_its_result(decoder) -> None:
    assert decode(decoder, *(bytes(n) for n in range(100))) == list(range(100))
    assert decode(decoder, bytes(20_000_000), b"a") == [20_000_000, 1]
    assert decode(decoder) == []


@pytest.mark.parametrize(
    ("file", "crash"),
    [
        (b"crash", "the decoder crashed (SIGSEGV)"),
        (b"exit", "the decoder crashed (exit status 3)"),
    ],
)
def test_a_crash_costs_one_file(decoder, file, crash) -> None:
    assert decode(decoder, b"a", file, b"bb", file, b"ccc") == [1, crash, 2, crash, 3]
    assert decode(decoder, file) == [crash]


def test_a_file_without_an_end_costs_one_file() -> None:
    # Long enough for the other files, also on a busy machine.
    decoder = DecoderProcess(handle, time_limit=2)
    hang = "the decoder did not end within 2 s"
    assert decode(decoder, b"a", b"hang", b"bb") == [1, hang, 2]
    decoder.close()


def test_a_file_that_crashes_only_once_has_a_result(tmp_path) -> None:
    marker = tmp_path / "crashed"

    def crash_once(file: bytes) -> int:
        if file == b"crash" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return len(file)

    decoder = DecoderProcess(crash_once)
    assert decode(decoder, b"a", b"crash", b"bb") == [1, 5, 2]
    decoder.close()


def test_after_a_crash_only_the_file_is_tried_alone(tmp_path) -> None:
    log = tmp_path / "log"

    def handle_and_log(file: bytes) -> int:
        with log.open("ab") as lines:
            lines.write(file + b" ")
        return handle(file)

    decoder = DecoderProcess(handle_and_log)
    assert decode(decoder, b"a", b"bb", b"crash", b"ccc") == [
        1,
        2,
        "the decoder crashed (SIGSEGV)",
        3,
    ]
    assert log.read_bytes().split() == b"a bb crash a bb crash ccc".split()
    decoder.close()


def test_an_exception_is_raised_by_the_parent(decoder) -> None:
    with pytest.raises(ValueError, match="a bug"):
        decode(decoder, b"a", b"error", b"bb")
    assert decode(decoder, b"a") == [1]


def test_results_that_nobody_took_are_not_those_of_later_files(decoder) -> None:
    answers = decoder.map([b"a", b"bb", b"ccc"])
    assert next(answers) == 1
    answers.close()
    assert decode(decoder, b"dddd") == [4]


def test_the_process_ends_with_its_parent() -> None:
    """The parent is killed, so it cannot end its child."""
    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:
        decoder = DecoderProcess(handle)
        list(decoder.map([b"a"]))
        os.write(write_end, b"%d" % (decoder.pid or 0))
        os.kill(os.getpid(), signal.SIGKILL)
    child = int(os.read(read_end, 20))
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("the child is still running")
