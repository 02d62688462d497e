"""Environment variables for running Spark on this machine, as `spark-submit.sh` also sets them.

To start fast, the module imports neither pyspark nor any other large package.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

CONF_DIR = Path(__file__).parent / "conf"
"""Configuration folder for Spark installations without one; it only configures logging."""

LOCAL_SETTINGS = {
    # A job on a single machine does not need a web interface.
    "spark.ui.enabled": "false",
    # Jobs take minutes, too short for the JVM's second compiler: it costs more time than it saves,
    # an eighth of the wall time of preprocessing 258,000 rows on 2 cores.
    "spark.driver.extraJavaOptions": "-XX:+UseParallelGC -XX:TieredStopAtLevel=1",
}
"""Settings of a session with a local master; `spark-defaults.conf` takes precedence."""

SETTINGS = {"spark.ui.showConsoleProgress": "false"}
"""Settings of a session with any master; `spark-defaults.conf` takes precedence."""

LOCAL_MASTER = "local[*]"

_MIN_HEAP_MIB = 1024
_MAX_HEAP_MIB = 8192
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def build_spark_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Build the environment variables for starting Spark, by default on all cores of this machine.

    Settings of the user take precedence: the variables SPARK_LOCAL_IP, SPARK_DRIVER_MEMORY,
    PYSPARK_PYTHON and PYSPARK_SUBMIT_ARGS, and the settings in `spark-defaults.conf`, such as
    `spark.master`. `spark-defaults.conf` is read from the folder SPARK_CONF_DIR of `environment`,
    by default Spark's folder `conf`, or from `CONF_DIR` if that folder does not exist. SPARK_HOME,
    SPARK_CONF_DIR and PYTHONHASHSEED are always set.

    Args:
        environment: Environment variables of this process.

    Returns:
        The variables to add to `environment` or to replace in it.
    """
    spark_home = _find_spark_home(environment)
    conf_dir = Path(environment.get("SPARK_CONF_DIR") or spark_home / "conf")
    if not conf_dir.is_dir():
        conf_dir = CONF_DIR
    configured = read_spark_defaults(conf_dir)
    master = configured.get("spark.master", LOCAL_MASTER)
    is_local = master == "local" or master.startswith("local[")
    settings = {**LOCAL_SETTINGS, **SETTINGS} if is_local else SETTINGS
    defaults = {
        "SPARK_DRIVER_MEMORY": f"{choose_driver_heap_mib()}m",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": _build_submit_arguments(settings, configured),
    }
    if is_local:
        # An IP address does not depend on the resolution of host names.
        defaults["SPARK_LOCAL_IP"] = "127.0.0.1"
    return {
        **{name: text for name, text in defaults.items() if not environment.get(name)},
        # With a Spark version that differs from pyspark's own, jobs fail without a clear message.
        "SPARK_HOME": str(spark_home),
        "SPARK_CONF_DIR": str(conf_dir),
        # The hashes of strings must be equal in all Python workers.
        "PYTHONHASHSEED": "0",
    }


def _find_spark_home(environment: Mapping[str, str]) -> Path:
    """Return the folder of pyspark's own Spark, or SPARK_HOME if pyspark is not installed."""
    # Finding the package takes a tenth of the time of importing it.
    pyspark = importlib.util.find_spec("pyspark")
    if pyspark is not None and pyspark.submodule_search_locations:
        return Path(next(iter(pyspark.submodule_search_locations)))
    return Path(environment.get("SPARK_HOME", ""))


def read_spark_defaults(conf_dir: Path) -> dict[str, str]:
    """Read the settings in a folder's `spark-defaults.conf`.

    Args:
        conf_dir: Configuration folder of Spark.

    Returns:
        The settings by key; empty if the file does not exist.
    """
    path = conf_dir / "spark-defaults.conf"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    # The format of Java's properties: KEY VALUE, KEY=VALUE or KEY: VALUE.
    settings = (re.fullmatch(r"\s*([^#!\s=:]+)(?:\s*[=:]\s*|\s+)(.*?)\s*", line) for line in lines)
    return {setting[1]: setting[2] for setting in settings if setting}


def _build_submit_arguments(settings: Mapping[str, str], configured: Mapping[str, str]) -> str:
    """Build the text of PYSPARK_SUBMIT_ARGS: options for a local master and for the settings.

    Args:
        settings: Settings to pass, by key.
        configured: Settings of the user, by key. The master and the settings whose keys occur here
            are omitted.
    """
    options = [] if "spark.master" in configured else ["--master", LOCAL_MASTER]
    for key, text in settings.items():
        if key not in configured:
            options += ["--conf", f"{key}={text}"]
    return shlex.join([*options, "pyspark-shell"])


def choose_driver_heap_mib() -> int:
    """Choose the JVM's heap size: a quarter of the memory, at least 1024 and at most 8192 MiB.

    If the container has less memory than the machine, a quarter of the container's memory is used.
    TensorFlow and Spark's Python workers run outside the JVM and need the remaining memory.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP_LIMITS:
        # An unlimited memory is given as "max" in the first file, and as 19 digits in the second.
        if path.is_file() and re.fullmatch(r"\d{1,18}", text := path.read_text().strip()):
            limits.append(int(text))
    return min(max((min(limits) // 4) >> 20, _MIN_HEAP_MIB), _MAX_HEAP_MIB)
