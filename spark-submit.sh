#!/usr/bin/env bash
# Runs a job of fer_pipeline/jobs with the Spark of the Python environment; see `./spark-submit.sh --help`.
set -euo pipefail

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
jobs=$here/fer_pipeline/jobs

die() { # STATUS MESSAGE
    echo "spark-submit.sh: $2" >&2
    exit "$1"
}

list_jobs() {
    local file
    for file in "$jobs"/[!_]*.py; do
        if [[ -e $file ]]; then basename "$file" .py; fi
    done
}

print_usage() {
    local name
    cat <<'END'
usage: ./spark-submit.sh [SPARK OPTIONS] JOB [JOB OPTIONS]

  SPARK OPTIONS  options of Spark's spark-submit (--master, --driver-memory, --conf KEY=VALUE...);
                 without --master, Spark runs on all cores of this machine
  JOB            one of the jobs below; ./spark-submit.sh JOB --help lists its options

END
    for name in $(list_jobs); do
        # The first line of the job's docstring.
        printf '    %-12s %s\n' "$name" \
            "$(sed -n '/^"""/{s/^"""//;s/"""$//;p;q;}' "$jobs/$name.py")"
    done
    cat <<'END'

PYSPARK_PYTHON and JAVA_HOME select another python and another Java (17, 21 or 25) than the ones found.
END
}

# --- The arguments: all before the job's name are options of Spark and their values.

spark_options=()
master='' deploy_mode='' properties_file='' conf=''
job=''
runs_job=yes # no for the few options with which spark-submit itself answers, such as --version

(($#)) || { print_usage >&2; exit 2; }
while (($#)); do
    case $1 in
        -h | --help) print_usage; exit 0 ;;
        -v | --verbose | --supervise) spark_options+=("$1"); shift; continue ;;
        --version) spark_options+=("$1"); runs_job=no; shift; continue ;;
        --*=*) option=${1%%=*} value=${1#*=}; spark_options+=("$1"); shift ;;
        -*)
            (($# > 1)) || die 2 "$1 needs a value"
            option=$1 value=$2; spark_options+=("$1" "$2"); shift 2 ;;
        *) job=$1; shift; break ;;
    esac
    case $option in
        --master) master=$value ;;
        --deploy-mode) deploy_mode=$value ;;
        --properties-file) properties_file=$value ;;
        # From $(ls ...) of a file that does not exist.
        --archives)
            [[ $value != '#'* ]] || die 2 "--archives $value: there is no file name before the #" ;;
        --conf | -c) conf+=$value$'\n' ;;
        --kill | --status) runs_job=no ;;
    esac
done

if [[ $runs_job == yes ]]; then
    names=$(list_jobs | paste -sd ' ')
    [[ -n $job ]] || die 2 "no job given after '${spark_options[*]}'; the jobs are: $names"
    [[ $job =~ ^[A-Za-z][A-Za-z0-9_]*$ && -f $jobs/$job.py ]] ||
        die 2 "there is no job '$job'; the jobs are: $names"
fi

# Spark's own message for this is a stack trace.
case $master in
    '' | local | local\[* | local-cluster\[* | spark://* | yarn | k8s://* | mesos://*) ;;
    *) die 2 "--master $master: expected spark://HOST:PORT, yarn, k8s://URL or local[CORES]" ;;
esac
if [[ $master == spark://* && $deploy_mode == cluster && $runs_job == yes ]]; then
    die 2 "--deploy-mode cluster: Spark cannot run Python jobs that way on $master; leave it out"
fi

# --- The python: the one of PYSPARK_PYTHON, else that of the nearest environment.

if [[ -n ${PYSPARK_PYTHON:-} ]]; then
    python=$PYSPARK_PYTHON
elif [[ -x $here/.venv/bin/python ]]; then
    python=$here/.venv/bin/python
elif [[ -n ${VIRTUAL_ENV:-} ]]; then
    python=$VIRTUAL_ENV/bin/python
else
    python=python3
fi
# Prints whether the python has fer_pipeline, and the folder of its pyspark. Finding them takes a
# tenth of the time of importing them. The current folder is left out, as for the job itself.
probe='
import sys
sys.path = [entry for entry in sys.path if entry]
from importlib.util import find_spec
pyspark = find_spec("pyspark")
home = pyspark.submodule_search_locations[0] if pyspark else ""
print("yes" if find_spec("fer_pipeline") else "no", home)
'
remedy="install it (pip install '${here}[all]'), or set PYSPARK_PYTHON to a python that has it"
command -v -- "$python" >/dev/null || die 1 "there is no $python to run fer_pipeline with; $remedy"
probe_output=$("$python" -c "$probe")
[[ $probe_output == yes* ]] || die 1 "$python has no fer_pipeline; $remedy"

if [[ -n $job ]]; then
    for argument in "$@"; do
        case $argument in
            # Help needs no JVM, so it does not look for one either.
            -h | --help) exec "$python" "$jobs/$job.py" --help ;;
        esac
    done
fi

# --- The environment of Spark and its workers.

# The Spark of the python's pyspark, whatever SPARK_HOME is: if the JVM and the python have different
# versions, jobs fail without naming the cause. SPARK_HOME counts only if the python has no pyspark,
# as on the machines of a cluster.
pip_spark=${probe_output#* }
export SPARK_HOME=${pip_spark:-${SPARK_HOME:-}}
[[ -n $SPARK_HOME ]] ||
    die 1 "$python has no pyspark (pip install 'fer_pipeline[spark]'), and SPARK_HOME is not set"

# -P: do not import from the current folder, where a file may have the name of a module.
JAVA_HOME=$("$python" -P -m fer_pipeline.spark.java)
export JAVA_HOME

# Otherwise Spark runs its workers with the system's python3, and a PYSPARK_DRIVER_PYTHON for
# notebooks would start a notebook.
export PYSPARK_PYTHON=$python PYSPARK_DRIVER_PYTHON=$python

# --- Defaults for settings that neither an option nor a file of the user sets.

# fer_pipeline/spark/conf only configures Spark's log: warnings, to stderr.
if [[ -z ${SPARK_CONF_DIR:-} ]]; then
    SPARK_CONF_DIR=$SPARK_HOME/conf
    if [[ ! -d $SPARK_CONF_DIR ]]; then SPARK_CONF_DIR=$here/fer_pipeline/spark/conf; fi
fi
export SPARK_CONF_DIR

# Prints the value of a key from --conf, or else from the properties file that Spark will read.
read_setting() { # KEY
    local file=${properties_file:-$SPARK_CONF_DIR/spark-defaults.conf}
    local key=${1//./\\.}
    {
        if [[ -f $file ]]; then sed -nE "s/^\s*$key(\s*[=:]\s*|\s+)//p" "$file"; fi
        sed -n "s/^$key=//p" <<<"$conf"
    } | tail -n 1
}

set_default() { # KEY VALUE
    if [[ -z $(read_setting "$1") ]]; then spark_options=(--conf "$1=$2" "${spark_options[@]}"); fi
}

# A quarter of the memory of this machine or container, between 1 and 8 GiB: TensorFlow and Spark's
# python workers run outside the JVM and need the rest.
compute_driver_memory() {
    local bytes limit file
    bytes=$(awk '/^MemTotal:/ {printf "%.0f", $2 * 1024}' /proc/meminfo)
    for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
        limit=$(cat "$file" 2>/dev/null || echo max)
        # Without a limit, the first file has "max" and the second a number of 19 digits.
        if [[ $limit =~ ^[0-9]{1,18}$ ]] && ((limit < bytes)); then bytes=$limit; fi
    done
    local mib=$((bytes / 4 / 1024 / 1024))
    echo "$((mib < 1024 ? 1024 : mib > 8192 ? 8192 : mib))m"
}

master=${master:-$(read_setting spark.master)}
deploy_mode=${deploy_mode:-$(read_setting spark.submit.deployMode)}
if [[ -z $master ]]; then
    master='local[*]'
    spark_options=(--master "$master" "${spark_options[@]}")
fi
if [[ $master == local || $master == local\[* ]]; then
    # All processes are on this machine: no web interface, and no host name that has to resolve.
    export SPARK_LOCAL_IP=${SPARK_LOCAL_IP:-127.0.0.1}
    set_default spark.ui.enabled false
    # In a job of minutes the second JIT compiler costs more than it saves: an eighth of the wall
    # time of preprocessing 258,000 rows on 2 cores.
    set_default spark.driver.extraJavaOptions '-XX:+UseParallelGC -XX:TieredStopAtLevel=1'
fi
if [[ $deploy_mode != cluster && -r /proc/meminfo ]]; then
    # --driver-memory, --conf and the properties file take precedence over the variable.
    export SPARK_DRIVER_MEMORY=${SPARK_DRIVER_MEMORY:-$(compute_driver_memory)}
fi
set_default spark.ui.showConsoleProgress false

# --- Start the job.

# spark-submit itself runs questions to Spark, drivers on the cluster, and a Spark without pyspark.
if [[ $runs_job == no ]]; then exec "$SPARK_HOME/bin/spark-submit" "${spark_options[@]}"; fi
if [[ $deploy_mode == cluster || -z $pip_spark ]]; then
    exec "$SPARK_HOME/bin/spark-submit" "${spark_options[@]}" "$jobs/$job.py" "$@"
fi

# Otherwise the job starts first, and its session starts spark-submit with these options. The other
# way round, spark-submit would write the job's stderr to stdout, and a job that needs no Spark would
# start a JVM.
quoted=''
for option in "${spark_options[@]}"; do
    quote="'\\''"
    quoted+="'${option//"'"/"$quote"}' "
done
export PYSPARK_SUBMIT_ARGS="${quoted}pyspark-shell"
# spark-submit would set these two: all workers need the same hashes of strings, ...
export PYTHONHASHSEED=0
# ... and the workers may have another python than the driver.
workers_python=$(read_setting spark.pyspark.python)
export PYSPARK_PYTHON=${workers_python:-$PYSPARK_PYTHON}
exec "$python" "$jobs/$job.py" "$@"
