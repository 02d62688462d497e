"""What made an output."""

from __future__ import annotations

import datetime
import platform
from importlib.metadata import PackageNotFoundError, version

from fer_pipeline import __version__


def package_versions(*packages: str) -> dict[str, str]:
    """The versions of this package, of Python and of those of the named packages that are there.

    Args:
        packages: Distribution names; TensorFlow comes under more than one.
    """
    found = {"fer_pipeline": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def utc_timestamp() -> str:
    """The time in UTC, in ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
