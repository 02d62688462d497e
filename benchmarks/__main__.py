"""Runs the benchmarks: `make bench`, or some of them: `python -m benchmarks feed networks`."""

from __future__ import annotations

import importlib
import sys

_ALL = ("preprocess", "feed", "training", "networks", "scoring")


def main(names: list[str]) -> None:
    """Runs the named benchmarks, or all, and prints a line for each figure."""
    wrong = [name for name in names if name not in _ALL]
    if wrong:
        sys.exit(f"no benchmark {wrong[0]}; there are: {', '.join(_ALL)}")
    for name in names or _ALL:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        for what, measured, goal in importlib.import_module(f"benchmarks.{name}").run():
            print(f"{what:<58} {measured:<44} {goal and f'goal: {goal}'}".rstrip(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
