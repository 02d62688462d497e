"""Command line of the benchmarks.

`make bench` runs the default benchmarks, and for example `python -m benchmarks feed networks` runs
two of them. The benchmarks on a cluster take most of an hour; they are not run by default, but with
`make bench-cluster`.
"""

from __future__ import annotations

import importlib
import sys

from benchmarks import data

_DEFAULT_BENCHMARKS = (
    "preprocess",
    "folders",
    "feed",
    "training",
    "networks",
    "scoring",
    "photographs",
    "decoders",
    "start",
)
_CLUSTER_BENCHMARKS = (
    "scale",
    "skew",
)


def main(names: list[str]) -> None:
    """Run benchmarks and print one line per figure.

    Args:
        names: Names of the benchmarks; empty for the default benchmarks.
    """
    known_names = (*_DEFAULT_BENCHMARKS, *_CLUSTER_BENCHMARKS)
    unknown_names = [name for name in names if name not in known_names]
    if unknown_names:
        sys.exit(f"unknown benchmark {unknown_names[0]}; choose from {', '.join(known_names)}")
    baseline_folder = data.find_baseline_script("preprocess").parent
    print(f"faces: {data.describe_faces()}; baselines: {baseline_folder}", file=sys.stderr)
    for name in names or _DEFAULT_BENCHMARKS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        for figure in importlib.import_module(f"benchmarks.{name}").run():
            goal = figure.goal and f"goal: {figure.goal}"
            print(f"{figure.name:<58} {figure.measurement:<44} {goal}".rstrip(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
