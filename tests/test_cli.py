import argparse
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from fer_pipeline import cli
from fer_pipeline.errors import ConfigError, FerError

ARGUMENTS = Namespace(log_level="INFO")


class OddError(FerError):
    exit_code = 7


def run_main(
    main: Callable[[Namespace], str], capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    code = cli.run_job(main, ARGUMENTS)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def make_failing_job(error: BaseException) -> Callable[[Namespace], str]:
    def main(arguments: Namespace) -> str:
        raise error

    return main


def test_a_report_goes_to_stdout(capsys):
    assert run_main(lambda arguments: "two\nlines", capsys) == (0, "two\nlines\n", "")


def test_a_report_has_no_control_characters(capsys):
    report = "scores a\x1b[31m\udc84\nend"
    assert run_main(lambda arguments: report, capsys) == (0, "scores a\\x1b[31m\\x84\nend\n", "")


def test_the_job_gets_its_arguments(capsys):
    assert run_main(lambda arguments: arguments.log_level, capsys) == (0, "INFO\n", "")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("image.size: too small"), 1, "error: image.size: too small\n"),
        (FerError("over\n  several\r\n\tlines "), 1, "error: over several lines\n"),
        (OddError("odd"), 7, "error: odd\n"),
        (FerError("a\x1b[31m\udc84\u202e.png: bad"), 1, "error: a\\x1b[31m\\x84\\u202e.png: bad\n"),
    ],
)
def test_an_expected_error_is_one_line_on_stderr(error, code, line, capsys):
    assert run_main(make_failing_job(error), capsys) == (code, "", line)


def test_an_interrupt_ends_with_the_exit_status_of_shells(capsys):
    assert run_main(make_failing_job(KeyboardInterrupt()), capsys) == (
        130,
        "",
        "error: interrupted\n",
    )


def test_an_interrupt_may_have_a_hint(capsys):
    interrupt = KeyboardInterrupt("--resume continues the run")
    line = "error: interrupted; --resume continues the run\n"
    assert run_main(make_failing_job(interrupt), capsys) == (130, "", line)


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run_job(make_failing_job(ZeroDivisionError()), ARGUMENTS)


PROGRAM = """
import logging, sys
from fer_pipeline import cli
from fer_pipeline.errors import InputError

def main(arguments):
    logging.getLogger("fer_pipeline.pipelines").info("read 3 files")
    logging.getLogger("fer_pipeline.pipelines").debug("in detail")
    logging.getLogger("py4j").info("chatter")
    if arguments.config:
        logging.getLogger("fer_pipeline.spark").warning("%s: odd", "a\\n\\x1b.png")
        raise InputError("no such\\nfile")
    return "report"

sys.exit(cli.run_job(main, cli.create_parser("preprocess", "Prepare a dataset.").parse_args()))
"""


def run_program(*arguments: str) -> tuple[int, str, str]:
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(cli.__file__).parents[1],
    )
    return process.returncode, process.stdout, process.stderr


def test_the_log_goes_to_stderr_and_only_the_report_to_stdout():
    code, out, err = run_program()
    assert (code, out) == (0, "report\n")
    (line,) = err.splitlines()
    assert line.endswith(" INFO read 3 files")


def test_the_log_level_is_applied_and_an_error_is_the_last_line():
    code, out, err = run_program("--log-level", "DEBUG", "--config", "x.yaml")
    assert (code, out) == (1, "")
    info_line, debug_line, warning_line, error_line = err.splitlines()
    assert info_line.endswith(" INFO read 3 files")
    assert debug_line.endswith(" DEBUG in detail")
    assert warning_line.endswith(r" WARNING a\n\x1b.png: odd")
    assert error_line == "error: no such file"


def parse(*arguments: str) -> Namespace:
    return cli.create_parser("train", "Train a network.").parse_args(arguments)


def test_every_job_has_a_config_overrides_and_a_log_level():
    assert parse() == Namespace(config=None, set=[], log_level="INFO")
    arguments = parse(
        "--set", "a=1", "--config", "c.yaml", "--log-level", "ERROR", "--set", "b.c=[2]"
    )
    assert arguments == Namespace(config=Path("c.yaml"), set=["a=1", "b.c=[2]"], log_level="ERROR")
    # Overrides are not shared between two calls.
    assert parse().set == []


@pytest.mark.parametrize("arguments", [["--conf", "x"], ["--log-level", "LOUD"], ["--set"], ["x"]])
def test_invalid_options_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        parse(*arguments)
    assert raised.value.code == 2
    assert "spark-submit.sh train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--confg", "c.yaml"], "error: unknown option --confg, did you mean --config?"),
        (["--st=a=1"], "error: unknown option --st, did you mean --set?"),
        (["--master=x"], "error: --master is an option of spark-submit; write it before the name"),
        (["--zzz"], "error: unknown option --zzz, expected one of --help, --config, --set, "),
    ],
)
def test_an_unknown_option_is_named_even_if_another_one_is_missing(arguments, message, capsys):
    parser = cli.create_parser("train", "Train a network.")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--hidden", help=argparse.SUPPRESS)
    with pytest.raises(SystemExit) as exit_error:
        parser.parse_args(arguments)
    assert exit_error.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert "--hidden" not in error


def test_arguments_after_two_dashes_are_no_options():
    parser = cli.create_parser("score", "Score images.")
    parser.add_argument("input", nargs="+")
    assert parser.parse_args(["--", "--odd name"]).input == ["--odd name"]


def test_a_script_beside_a_checkout_imports_the_package(tmp_path):
    (tmp_path / "fer_pipeline").mkdir()
    script = tmp_path / "script.py"
    script.write_text("from fer_pipeline import load_config")
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True)
