import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fer_pipeline import console
from fer_pipeline.spark import local_mode

ROOT = Path(__file__).resolve().parents[1]
JOBS = ["compare", "evaluate", "export", "preprocess", "preview", "score", "summarize", "train"]


def run_console(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fer_pipeline", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPROFILEIMPORTTIME": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def list_imported_packages(process: subprocess.CompletedProcess[str]) -> set[str]:
    """Return the packages that a process has imported."""
    times = re.findall(r"^import time:.*\|\s*([\w.]+)$", process.stderr, re.MULTILINE)
    return {name.partition(".")[0] for name in times}


class TestHelp:
    @pytest.mark.parametrize("option", ["--help", "-h"])
    def test_the_help_lists_the_jobs_with_a_line_each(self, option, capsys):
        with pytest.raises(SystemExit) as exit_error:
            console.main([option])
        assert exit_error.value.code == 0
        listed = re.findall(r"^  ([a-z-]+) +([A-Z].*\.)$", capsys.readouterr().out, re.MULTILINE)
        assert [name for name, _ in listed] == [*JOBS, "jobs-path"]

    def test_the_help_needs_neither_spark_nor_tensorflow(self):
        process = run_console("--help")
        assert process.returncode == 0
        assert "spark-submit --master" in process.stdout
        heavy = {"pyspark", "py4j", "tensorflow", "keras", "petastorm", "pyarrow", "matplotlib"}
        assert "argparse" in list_imported_packages(process)
        assert not list_imported_packages(process) & heavy

    @pytest.mark.parametrize("job", JOBS)
    def test_the_help_of_a_job_lists_its_options(self, job, capsys, monkeypatch):
        monkeypatch.setattr(os, "environ", dict(os.environ))
        with pytest.raises(SystemExit) as exit_error:
            console.main([job, "--help"])
        assert exit_error.value.code == 0
        out = capsys.readouterr().out
        assert out.startswith(f"usage: fer-pipeline {job} ")
        assert "--log-level" in out

    @pytest.mark.parametrize("arguments", [[], ["preproces"]])
    def test_a_wrong_job_is_an_error_that_lists_the_jobs(self, arguments, capsys):
        with pytest.raises(SystemExit) as exit_error:
            console.main(arguments)
        assert exit_error.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith("usage: fer-pipeline JOB")
        assert "JOB" in err.splitlines()[-1]


class TestJobFiles:
    def test_jobs_path_is_the_folder_of_the_job_files(self, capsys):
        assert console.main(["jobs-path"]) == 0
        folder = Path(capsys.readouterr().out.removesuffix("\n"))
        assert sorted(path.stem for path in folder.glob("[!_]*.py")) == JOBS

    def test_a_checkout_has_a_file_for_each_job(self):
        files = {path.stem: path.read_text() for path in (ROOT / "jobs").glob("*.py")}
        assert sorted(files) == JOBS
        for name, text in files.items():
            assert f"from fer_pipeline.jobs.{name} import main\n" in text


@pytest.mark.parametrize(
    ("arguments", "job"),
    [
        (["train", "--summary"], "summarize"),
        (["train", "--summary", "net.png", "--set", "image.size=28"], "summarize"),
        (["train", "--dataset", "d", "--preview", "p.png"], "preview"),
        (["evaluate", "--compare", "a", "b", "--dataset", "d", "--output", "o"], "compare"),
    ],
)
def test_an_option_that_became_a_job_is_refused_in_one_line(arguments, job, capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(SystemExit) as exit_error:
        console.main(arguments)
    assert exit_error.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"fer-pipeline {arguments[0]}: error: --")
    assert f"is now a job: {job} " in err


def write_spark_defaults(folder: Path, text: str) -> dict[str, str]:
    """Write `spark-defaults.conf`; return the variables of a process that names its folder."""
    (folder / "spark-defaults.conf").write_text(text)
    return {"SPARK_CONF_DIR": str(folder)}


class TestSparkEnvironment:
    def test_an_empty_environment_gets_all_local_settings(self):
        environment = local_mode.build_spark_environment({})
        heap = environment.pop("SPARK_DRIVER_MEMORY")
        assert 1024 <= int(heap.removesuffix("m")) <= 8192
        assert environment == {
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_SUBMIT_ARGS": (
                "--master 'local[*]' --conf spark.ui.enabled=false"
                " --conf 'spark.driver.extraJavaOptions=-XX:+UseParallelGC -XX:TieredStopAtLevel=1'"
                " --conf spark.ui.showConsoleProgress=false pyspark-shell"
            ),
            "PYTHONHASHSEED": "0",
            "SPARK_CONF_DIR": str(local_mode.CONF_DIR),
            "SPARK_HOME": environment["SPARK_HOME"],
            "SPARK_LOCAL_IP": "127.0.0.1",
        }
        assert (Path(environment["SPARK_HOME"]) / "bin" / "spark-submit").is_file()
        assert (local_mode.CONF_DIR / "log4j2.properties").is_file()

    @pytest.mark.parametrize(
        "name", ["SPARK_DRIVER_MEMORY", "SPARK_LOCAL_IP", "PYSPARK_PYTHON", "PYSPARK_SUBMIT_ARGS"]
    )
    def test_a_variable_of_the_user_is_kept(self, name):
        assert name not in local_mode.build_spark_environment({name: "the user's"})

    def test_another_spark_home_is_replaced(self):
        environment = local_mode.build_spark_environment({"SPARK_HOME": "/opt/another-spark"})
        assert environment["SPARK_HOME"].endswith("pyspark")

    def test_settings_of_the_user_are_kept(self, tmp_path):
        text = (
            "# spark.ui.enabled true\nspark.ui.showConsoleProgress=true\nspark.master  local[2]\n"
        )
        variables = write_spark_defaults(tmp_path, text)
        environment = local_mode.build_spark_environment(variables)
        assert environment["SPARK_CONF_DIR"] == str(tmp_path)
        assert environment["PYSPARK_SUBMIT_ARGS"] == (
            "--conf spark.ui.enabled=false"
            " --conf 'spark.driver.extraJavaOptions=-XX:+UseParallelGC -XX:TieredStopAtLevel=1'"
            " pyspark-shell"
        )
        assert environment["SPARK_LOCAL_IP"] == "127.0.0.1"

    def test_a_cluster_in_the_users_settings_gets_no_local_ones(self, tmp_path):
        variables = write_spark_defaults(tmp_path, "spark.master: spark://host:7077\n")
        environment = local_mode.build_spark_environment(variables)
        assert environment["PYSPARK_SUBMIT_ARGS"] == (
            "--conf spark.ui.showConsoleProgress=false pyspark-shell"
        )
        assert "SPARK_LOCAL_IP" not in environment

    def test_the_settings_equal_those_of_the_script(self):
        script = (ROOT / "spark-submit.sh").read_text()
        options = re.findall(r"^ *set_default (\S+) '?(.+?)'?$", script, re.MULTILINE)
        assert dict(options) == {**local_mode.LOCAL_SETTINGS, **local_mode.SETTINGS}


@pytest.mark.parametrize(
    ("limit", "heap"), [("max", 8192), ("9" * 19, 8192), (str(6 << 30), 1536), ("1000", 1024)]
)
def test_the_heap_is_a_quarter_of_a_containers_memory(limit, heap, tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    monkeypatch.setattr(local_mode, "_CGROUP_LIMITS", (tmp_path / "memory.max",))
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, 64 << 18))
    assert local_mode.choose_driver_heap_mib() == heap
