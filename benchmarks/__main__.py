"""Runs the benchmarks: `make bench`, or some of them: `python -m benchmarks feed networks`.

Those on a cluster, which take most of an hour, run only by name: `make bench-cluster`.
"""

from __future__ import annotations

import importlib
import sys

_ALL = ("preprocess", "feed", "training", "networks", "scoring")
_BY_NAME = ("scale", "skew")


def main(names: list[str]) -> None:
    """Runs the named benchmarks, or all of `make bench`, and prints a line for each figure."""
    known = (*_ALL, *_BY_NAME)
    wrong = [name for name in names if name not in known]
    if wrong:
        sys.exit(f"no benchmark {wrong[0]}; there are: {', '.join(known)}")
    for name in names or _ALL:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        for what, measured, goal in importlib.import_module(f"benchmarks.{name}").run():
            print(f"{what:<58} {measured:<44} {goal and f'goal: {goal}'}".rstrip(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
