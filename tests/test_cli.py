import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from fer_pipeline import cli
from fer_pipeline.errors import ConfigError, FerError

ARGUMENTS = Namespace(log_level="INFO")


class OddError(FerError):
    exit_code = 7


def outcome(main, capsys) -> tuple[int, str, str]:
    code = cli.run_job(main, ARGUMENTS)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def raising(error: BaseException):
    def main(arguments: Namespace) -> str:
        raise error

    return main


def test_a_result_goes_to_stdout(capsys):
    assert outcome(lambda arguments: "two\nlines", capsys) == (0, "two\nlines\n", "")


def test_the_job_gets_its_arguments(capsys):
    assert outcome(lambda arguments: arguments.log_level, capsys) == (0, "INFO\n", "")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("image.size: too small"), 1, "error: image.size: too small\n"),
        (FerError("over\n  several\r\n\tlines "), 1, "error: over several lines\n"),
        (OddError("odd"), 7, "error: odd\n"),
    ],
)
def test_an_error_of_the_users_is_one_line_on_stderr(error, code, line, capsys):
    assert outcome(raising(error), capsys) == (code, "", line)


def test_an_interruption_ends_as_a_shell_expects(capsys):
    assert outcome(raising(KeyboardInterrupt()), capsys) == (130, "", "error: interrupted\n")


def test_an_interruption_may_say_what_goes_on(capsys):
    stopped = KeyboardInterrupt("--resume goes on")
    line = "error: interrupted; --resume goes on\n"
    assert outcome(raising(stopped), capsys) == (130, "", line)


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run_job(raising(ZeroDivisionError()), ARGUMENTS)


PROGRAM = """
import logging, sys
from fer_pipeline import cli
from fer_pipeline.errors import InputError

def main(arguments):
    logging.getLogger("fer_pipeline.stages").info("read 3 files")
    logging.getLogger("fer_pipeline.stages").debug("in detail")
    logging.getLogger("py4j").info("chatter")
    if arguments.config:
        raise InputError("no such\\nfile")
    return "result"

sys.exit(cli.run_job(main, cli.create_parser("preprocess", "What it does.").parse_args()))
"""


def program(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(cli.__file__).parents[1],
    )
    return done.returncode, done.stdout, done.stderr


def test_the_log_goes_to_stderr_and_the_result_alone_to_stdout():
    code, out, err = program()
    assert (code, out) == (0, "result\n")
    (line,) = err.splitlines()
    assert line.endswith(" INFO read 3 files")


def test_the_log_level_is_obeyed_and_an_error_is_the_last_line():
    code, out, err = program("--log-level", "DEBUG", "--config", "x.yaml")
    assert (code, out) == (1, "")
    read, detail, error = err.splitlines()
    assert read.endswith(" INFO read 3 files")
    assert detail.endswith(" DEBUG in detail")
    assert error == "error: no such file"


def parsed(*arguments: str) -> Namespace:
    return cli.create_parser("train", "Trains.").parse_args(arguments)


def test_every_job_has_a_config_overrides_and_a_log_level():
    assert parsed() == Namespace(config=None, set=[], log_level="INFO")
    found = parsed("--set", "a=1", "--config", "c.yaml", "--log-level", "ERROR", "--set", "b.c=[2]")
    assert found == Namespace(config=Path("c.yaml"), set=["a=1", "b.c=[2]"], log_level="ERROR")
    # One run's overrides are not another's.
    assert parsed().set == []


@pytest.mark.parametrize("arguments", [["--conf", "x"], ["--log-level", "LOUD"], ["--set"], ["x"]])
def test_what_is_no_option_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        parsed(*arguments)
    assert raised.value.code == 2
    assert "spark-submit.sh train" in capsys.readouterr().err
