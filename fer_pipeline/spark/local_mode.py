"""Environment variables of Spark on the cores of this machine, as `spark-submit.sh` sets them.

Imports neither pyspark nor anything else that is slow.
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
"""The configuration folder for a Spark without one: it only says how Spark logs."""

LOCAL_SETTINGS = {
    # All of it is on this machine: nothing to show to others.
    "spark.ui.enabled": "false",
    # For the minutes that a job takes here, the second compiler costs more than it saves: an eighth
    # of the wall time of preprocessing 258,000 rows on 2 cores.
    "spark.driver.extraJavaOptions": "-XX:+UseParallelGC -XX:TieredStopAtLevel=1",
}
"""Settings of a session with a local master; `spark-defaults.conf` wins over each."""

SETTINGS = {"spark.ui.showConsoleProgress": "false"}
"""Settings of a session with any master; likewise."""

LOCAL_MASTER = "local[*]"

_MIN_HEAP_MIB = 1024
_MAX_HEAP_MIB = 8192
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def build_local_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which this process starts Spark on all cores of the machine.

    What the user has set stays: SPARK_CONF_DIR and the keys of its `spark-defaults.conf` (a master
    too), SPARK_LOCAL_IP, SPARK_DRIVER_MEMORY, PYSPARK_PYTHON, and PYSPARK_SUBMIT_ARGS as a whole.

    Args:
        environment: Variables of this process.
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
        "PYSPARK_SUBMIT_ARGS": _join_submit_arguments(settings, configured),
    }
    if is_local:
        # No name that would have to resolve.
        defaults["SPARK_LOCAL_IP"] = "127.0.0.1"
    return {
        **{name: text for name, text in defaults.items() if not environment.get(name)},
        # With another version of Spark than pyspark's own, jobs fail without naming the cause.
        "SPARK_HOME": str(spark_home),
        "SPARK_CONF_DIR": str(conf_dir),
        # Hashes of str have to agree between the Python workers.
        "PYTHONHASHSEED": "0",
    }


def _find_spark_home(environment: Mapping[str, str]) -> Path:
    # Found, not imported, which takes a tenth of the time.
    pyspark = importlib.util.find_spec("pyspark")
    if pyspark is not None and pyspark.submodule_search_locations:
        return Path(next(iter(pyspark.submodule_search_locations)))
    return Path(environment.get("SPARK_HOME", ""))


def read_spark_defaults(conf_dir: Path) -> dict[str, str]:
    """Return the settings in a folder's `spark-defaults.conf`; empty without that file."""
    path = conf_dir / "spark-defaults.conf"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    # The format of Java's properties: KEY VALUE, KEY=VALUE or KEY: VALUE.
    settings = (re.fullmatch(r"\s*([^#!\s=:]+)(?:\s*[=:]\s*|\s+)(.*?)\s*", line) for line in lines)
    return {setting[1]: setting[2] for setting in settings if setting}


def _join_submit_arguments(settings: Mapping[str, str], configured: Mapping[str, str]) -> str:
    options = [] if "spark.master" in configured else ["--master", LOCAL_MASTER]
    for key, text in settings.items():
        if key not in configured:
            options += ["--conf", f"{key}={text}"]
    return shlex.join([*options, "pyspark-shell"])


def choose_driver_heap_mib() -> int:
    """Return the heap of the JVM: a quarter of the memory, between 1 and 8 GiB, in MiB.

    The memory is that of this machine or of the container. TensorFlow and Spark's Python workers
    run outside the JVM and need the rest.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP_LIMITS:
        # No limit is "max" in the one and a number of 19 digits in the other.
        if path.is_file() and re.fullmatch(r"\d{1,18}", text := path.read_text().strip()):
            limits.append(int(text))
    return min(max((min(limits) // 4) >> 20, _MIN_HEAP_MIB), _MAX_HEAP_MIB)
